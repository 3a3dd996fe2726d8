//! The heads of a layer, spread over threads.
use core::marker::PhantomData;
use core::ops::Range;

use kvsift_sys as sys;

use crate::cache::{Cache, Heads, Query};
use crate::config::Shape;
use crate::error::{check_length, Error, Result};
use crate::names::Tail;
use crate::observation::Observation;
use crate::policy::Policy;
use crate::selection::Selection;
use crate::view::View;

/// Some KV heads of one layer, with all their query heads: what one thread of a step works on. Parts of one
/// [`Policy::heads_mut`] share no head, so they may be used at the same time; the policy may be used again when they are gone.
///
/// What is read (keys, values, queries, caches) is indexed as ever, by all heads of the layer. What belongs to the part
/// (`out`, observations) holds its query heads only. Where a call fails, [`Policy::last_error`] has the library's sentence
/// (of one of the threads that failed), once the parts are gone.
///
/// ```
/// use kvsift::{Cache, Config, Method, Policy, Query, Shape, View};
/// let shape = Shape { layers: 1, query_heads: 4, kv_heads: 2, head_dim: 16, max_tokens: 64 };
/// let mut policy = Policy::new(&Config::new(Method::Streaming, shape).budget_tokens(32).sink_tokens(4))?;
/// let (rows, queries) = (vec![0.5f32; 2 * 64 * 16], [0.25f32; 4 * 16]);
/// let (rows, query) = (View::f32(&rows, 16, 64 * 16), Query::new(64, View::f32(&queries, 0, 16)));
/// let mut out = [0.0f32; 4 * 16];
/// std::thread::scope(|threads| {
///     // a KV head to each thread, and its two query heads' output
///     for (mut part, out) in policy.heads_mut(0, 1)?.zip(out.chunks_mut(2 * 16)) {
///         threads.spawn(move || {
///             part.observe_keys(0, 64, &rows, Some(&rows)).unwrap();
///             part.select_blocks(&query).unwrap().decode_attend(&query, &Cache::new(64, rows, rows), out).unwrap();
///         });
///     }
///     Ok::<(), kvsift::Error>(())
/// })?;
/// policy.advance(64)?;
/// assert_eq!(out, [0.5; 4 * 16]);
/// # Ok::<(), kvsift::Error>(())
/// ```
pub struct PolicyHeads<'p> {
    policy: &'p Policy<'p>,
    layer: u32,
    heads: Heads,
}

// SAFETY: calls for disjoint heads of one layer may overlap, says the header. Parts are disjoint, every call names the heads of
// its part, and of the policy itself only what never changes is looked at.
unsafe impl Send for PolicyHeads<'_> {}

impl PolicyHeads<'_> {
    pub fn layer(&self) -> u32 {
        self.layer
    }

    pub fn heads(&self) -> Heads {
        self.heads
    }

    pub fn query_heads(&self) -> Range<usize> {
        let first = self.heads.first as usize * self.group();
        first..first + self.heads.count as usize * self.group()
    }

    /// As [`Policy::observe_keys`].
    pub fn observe_keys(
        &mut self,
        first_token: u32,
        tokens: u32,
        keys: &View<'_>,
        values: Option<&View<'_>>,
    ) -> Result<()> {
        let code = self.policy.observe_keys_of(self.layer, self.heads, first_token, tokens, keys, values)?;
        self.check(code)
    }

    /// As [`Policy::select_blocks`]; the heads that the query names are not looked at.
    pub fn select_blocks<'s>(&'s mut self, query: &Query<'_>) -> Result<HeadsSelection<'s>> {
        let part = &*self;
        let (raw, code) = part.policy.select_of(part.layer, &query.heads(part.heads))?;
        part.check(code)?;
        Ok(HeadsSelection { part, inner: Selection { raw, policy: part.policy, layer: part.layer } })
    }

    /// As [`Policy::observe_attention`].
    pub fn observe_attention(&mut self, observation: &Observation<'_>) -> Result<()> {
        observation.check(self.query_heads().len() as u32, false)?;
        let raw = observation.at_head(self.query_heads().start);
        // SAFETY: the buffers were checked to hold the part's heads, and no others are read.
        self.check(unsafe {
            sys::kvsift_observe_attention(self.policy.raw(), self.layer, &self.heads.raw(), &raw)
        })
    }

    /// As [`Policy::predict_next`].
    pub fn predict_next(&mut self) -> Result<()> {
        // SAFETY: the policy is alive.
        self.check(unsafe { sys::kvsift_predict_next(self.policy.raw(), self.layer, &self.heads.raw()) })
    }

    /// As [`Policy::prefill_attend`], into the part of the output that came with this part ([`HeadsMut::with_out`]).
    pub fn prefill_attend(
        &mut self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: &mut HeadsOut<'_>,
    ) -> Result<()> {
        let query = query.heads(self.heads);
        self.policy.check_query(&query)?;
        self.policy.check_cache(cache)?;
        // A policy of another shape writes the rows of the same heads elsewhere.
        if out.heads != self.heads || out.shape != self.policy.shape() {
            return Err(Error::invalid(format_args!("out is of other heads, or of another shape")));
        }
        self.policy.check_out_length(out.length, query.row_count() as usize)?;
        // SAFETY: everything that is read was checked to lie in its slice, and of the output only these heads are written.
        self.check(unsafe {
            let (policy, out) = (self.policy.raw(), out.start);
            sys::kvsift_prefill_attend(policy, self.layer, &query.raw, &cache.raw, out)
        })
    }

    fn group(&self) -> usize {
        self.policy.group() as usize
    }

    /// The policy's sentence may be another thread's to write just now.
    fn check(&self, code: sys::kvsift_status) -> Result<()> {
        if code == sys::KVSIFT_OK as i32 {
            return Ok(());
        }
        let Heads { first, count } = self.heads;
        Err(Error::of_heads(code, self.layer, first, first + count))
    }
}

/// What the heads of a part attend to.
pub struct HeadsSelection<'s> {
    part: &'s PolicyHeads<'s>,
    inner: Selection<'s>,
}

impl HeadsSelection<'_> {
    /// Each list is the one range of all tokens.
    pub fn everything(&self) -> bool {
        self.inner.everything()
    }

    /// The method wants this step's full attention row.
    pub fn calibration(&self) -> bool {
        self.inner.calibration()
    }

    pub fn tail(&self) -> Tail {
        self.inner.tail()
    }

    /// The numbers of the part's lists: KV heads, or query heads where each has its own.
    pub fn lists(&self) -> Range<usize> {
        let Heads { first, count } = self.part.heads;
        match self.inner.per_query_head() {
            true => self.part.query_heads(),
            false => first as usize..(first + count) as usize,
        }
    }

    /// As [`Selection::ranges`]; `None` for a list that is not the part's.
    pub fn ranges(&self, list: usize) -> Option<&[sys::kvsift_range]> {
        self.lists().contains(&list).then(|| self.inner.ranges(list))?
    }

    /// As [`Selection::blocks`].
    pub fn blocks(&self, list: usize) -> Option<&[u32]> {
        self.lists().contains(&list).then(|| self.inner.blocks(list))?
    }

    /// As [`Selection::missed`].
    pub fn missed(&self, list: usize) -> Option<&[u32]> {
        self.lists().contains(&list).then(|| self.inner.missed(list))?
    }

    /// As [`Selection::coreset`].
    pub fn coreset(&self, kv_head: usize) -> Option<(&[u32], &[f32])> {
        let Heads { first, count } = self.part.heads;
        let own = first as usize..(first + count) as usize;
        own.contains(&kv_head).then(|| self.inner.coreset(kv_head))?
    }

    /// As [`Selection::attend`]. `out`: `[the part's query heads][head_dim]`.
    pub fn attend(
        &self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: &mut [f32],
        observation: Option<&mut Observation<'_>>,
    ) -> Result<()> {
        let (query, heads) = (query.heads(self.part.heads), self.part.query_heads());
        let out = self.check_step(&query, cache, out)?;
        let Some(observation) = observation else {
            return self.part.check(self.inner.attend_at(&query, cache, out, core::ptr::null_mut()));
        };
        observation.check(heads.len() as u32, true)?;
        let mut raw = observation.at_head(heads.start);
        let code = self.inner.attend_at(&query, cache, out, &mut raw);
        observation.take_step(&raw);
        self.part.check(code)
    }

    /// As [`Selection::decode_attend`]. `out`: `[the part's query heads][head_dim]`.
    pub fn decode_attend(&mut self, query: &Query<'_>, cache: &Cache<'_>, out: &mut [f32]) -> Result<()> {
        let query = query.heads(self.part.heads);
        let out = self.check_step(&query, cache, out)?;
        let code = self.inner.decode_attend_at(&query, cache, out);
        self.part.check(code)
    }

    /// As [`Selection::attend_tail`]. `out` and `log_sum_exp` hold the part's query heads.
    pub fn attend_tail(
        &self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: &mut [f32],
        log_sum_exp: &mut [f32],
    ) -> Result<()> {
        let (query, heads) = (query.heads(self.part.heads), self.part.query_heads());
        let out = self.check_step(&query, cache, out)?;
        check_length("log_sum_exp", log_sum_exp.len(), heads.len())?;
        let sums = log_sum_exp.as_mut_ptr().wrapping_sub(heads.start);
        self.part.check(self.inner.attend_tail_at(&query, cache, out, sums))
    }

    /// Where the output of all heads would begin.
    fn check_step(&self, query: &Query<'_>, cache: &Cache<'_>, out: &mut [f32]) -> Result<*mut f32> {
        let (policy, heads) = (self.part.policy, self.part.query_heads());
        policy.check_query(query)?;
        policy.check_cache(cache)?;
        let head_dim = policy.shape().head_dim as usize;
        check_length("out", out.len(), heads.len() * head_dim)?;
        Ok(out.as_mut_ptr().wrapping_sub(heads.start * head_dim))
    }
}

/// The parts of a layer, in order ([`Policy::heads_mut`]).
pub struct HeadsMut<'p> {
    policy: &'p Policy<'p>,
    layer: u32,
    width: u32,
    next: u32,
}

impl<'p> HeadsMut<'p> {
    pub(crate) fn new(policy: &'p Policy<'p>, layer: u32, width: u32) -> Result<HeadsMut<'p>> {
        let layers = policy.shape().layers;
        if layer >= layers {
            return Err(Error::invalid(format_args!("layer is {layer}, the policy has {layers}")));
        }
        if width == 0 {
            return Err(Error::invalid(format_args!("a part cannot have 0 KV heads")));
        }
        Ok(HeadsMut { policy, layer, width, next: 0 })
    }

    /// Each part with its share of a prompt's output, `[rows][query heads][head_dim]`.
    pub fn with_out<'o>(
        self,
        rows: u32,
        out: &'o mut [f32],
    ) -> Result<impl ExactSizeIterator<Item = (PolicyHeads<'p>, HeadsOut<'o>)>> {
        self.policy.check_out(out, rows as usize)?;
        let (start, length, shape) = (out.as_mut_ptr(), out.len(), self.policy.shape());
        Ok(self.map(move |part| {
            let heads = part.heads;
            (part, HeadsOut { start, length, heads, shape, lent: PhantomData })
        }))
    }
}

impl<'p> Iterator for HeadsMut<'p> {
    type Item = PolicyHeads<'p>;

    fn next(&mut self) -> Option<PolicyHeads<'p>> {
        let left = self.policy.shape().kv_heads - self.next;
        let heads = Heads { first: self.next, count: left.min(self.width) };
        self.next += heads.count;
        (left > 0).then_some(PolicyHeads { policy: self.policy, layer: self.layer, heads })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.policy.shape().kv_heads - self.next).div_ceil(self.width) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for HeadsMut<'_> {}

/// The rows of a prompt's output that belong to the heads of a part.
pub struct HeadsOut<'o> {
    start: *mut f32,
    length: usize,
    heads: Heads,
    shape: Shape,
    lent: PhantomData<&'o mut [f32]>,
}

// SAFETY: parts of an output share no element, and are written by their own part only.
unsafe impl Send for HeadsOut<'_> {}
