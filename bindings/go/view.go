package kvsift

// #include "shim.h"
import "C"

import (
	"math"
	"math/bits"
	"unsafe"
)

// View is rows of HeadDim contiguous elements, one for each token and head, read where they lie. Strides count elements:
// row (token, head) of a contiguous cache begins at token*tokenStride + head*headStride.
type View struct {
	data       unsafe.Pointer
	scales     unsafe.Pointer
	bytes      uint64
	scaleBytes uint64
	kind       Type
	strides    strides // in bytes
	scaleSteps strides
}

type strides struct{ token, head, page uint64 }

// What of a view a call reads.
type extent struct{ pages, tokens, heads, headDim uint64 }

// F32 views single precision.
func F32(data []float32, tokenStride, headStride int) View {
	return View{data: unsafe.Pointer(floats(data)), bytes: 4 * uint64(len(data)), kind: TypeF32,
		strides: steps(tokenStride, headStride, 4)}
}

// F16 views half precision, as bits.
func F16(data []uint16, tokenStride, headStride int) View {
	return halves(data, tokenStride, headStride, TypeF16)
}

// BF16 views upper halves of float32, as bits.
func BF16(data []uint16, tokenStride, headStride int) View {
	return halves(data, tokenStride, headStride, TypeBF16)
}

func halves(data []uint16, tokenStride, headStride int, kind Type) View {
	v := View{bytes: 2 * uint64(len(data)), kind: kind, strides: steps(tokenStride, headStride, 2)}
	if len(data) > 0 {
		v.data = unsafe.Pointer(&data[0])
	}
	return v
}

// I8 views bytes with one scale for each row, with strides of their own.
func I8(data []int8, tokenStride, headStride int, scales []float32, scaleTokenStride, scaleHeadStride int) View {
	v := View{bytes: uint64(len(data)), kind: TypeI8, strides: steps(tokenStride, headStride, 1)}
	if len(data) > 0 {
		v.data = unsafe.Pointer(&data[0])
	}
	v.scales = unsafe.Pointer(floats(scales))
	v.scaleBytes = 4 * uint64(len(scales))
	v.scaleSteps = steps(scaleTokenStride, scaleHeadStride, 4)
	return v
}

// Paged gives a view of a cache with a block table its elements (and, for I8, scales) from a page to the next.
func (v View) Paged(pageStride, scalePageStride int) View {
	v.strides.page = stride(pageStride, elementBytes(v.kind))
	v.scaleSteps.page = stride(scalePageStride, 4)
	return v
}

func steps(token, head int, size uint64) strides {
	return strides{token: stride(token, size), head: stride(head, size)}
}

// A negative stride becomes one that no slice is long enough for, or that the library refuses.
func stride(elements int, size uint64) uint64 {
	if elements < 0 {
		return math.MaxUint64 / 8 * size
	}
	return uint64(elements) * size
}

func elementBytes(kind Type) uint64 {
	switch kind {
	case TypeF32:
		return 4
	case TypeI8:
		return 1
	}
	return 2
}

func (v *View) check(name string, e extent) error {
	if end := e.end(v.strides, e.headDim*elementBytes(v.kind)); end > v.bytes || v.data == nil {
		return invalid("%s: the data have %d bytes, %d heads of %d x %d tokens end at %d", name, v.bytes, e.heads,
			e.pages, e.tokens, end)
	}
	if v.kind != TypeI8 {
		return nil
	}
	if end := e.end(v.scaleSteps, 4); end > v.scaleBytes || v.scales == nil {
		return invalid("%s: the scales have %d bytes, %d heads of %d x %d tokens end at %d", name, v.scaleBytes, e.heads,
			e.pages, e.tokens, end)
	}
	return nil
}

// Where the last row ends, in bytes; the largest number there is, where that is beyond all numbers.
func (e extent) end(s strides, row uint64) uint64 {
	if e.pages == 0 || e.tokens == 0 || e.heads == 0 {
		return 0
	}
	end := add(row, times(e.pages-1, s.page))
	end = add(end, times(e.tokens-1, s.token))
	return add(end, times(e.heads-1, s.head))
}

func times(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high != 0 {
		return math.MaxUint64
	}
	return low
}

func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

func (v *View) shape(c *C.kvsift_view) {
	c._type = C.kvsift_type(v.kind)
	c.token_stride = C.uint64_t(v.strides.token)
	c.head_stride = C.uint64_t(v.strides.head)
	c.page_stride = C.uint64_t(v.strides.page)
	c.scale_token_stride = C.uint64_t(v.scaleSteps.token)
	c.scale_head_stride = C.uint64_t(v.scaleSteps.head)
	c.scale_page_stride = C.uint64_t(v.scaleSteps.page)
}

func (v *View) rows() *C.uint8_t    { return (*C.uint8_t)(v.data) }
func (v *View) rowScales() *C.float { return (*C.float)(v.scales) }

// The start of a slice; nil where it is empty.
func floats(s []float32) *C.float {
	if len(s) == 0 {
		return nil
	}
	return (*C.float)(unsafe.Pointer(&s[0]))
}
