package kvsift

// #include "shim_balance.h"
import "C"

import "unsafe"

// Stream compresses a cache as it grows, by merge and reduce in bounded memory. It must be closed.
type Stream struct {
	guard
	c       *C.go_stream
	headDim uint32
}

// NewStreamConfig is a configuration with the defaults of a form. Balance.HeadDim and MaxTokens must be set.
func NewStreamConfig(form uint32) (StreamConfig, error) {
	var config StreamConfig
	config.structSize = uint32(unsafe.Sizeof(config))
	raw := (*C.kvsift_balance_stream_config)(unsafe.Pointer(&config))
	err := check(C.kvsift_balance_stream_config_init(raw, C.uint32_t(form)))
	return config, err
}

// NewStream makes a stream in C memory of its own.
func NewStream(config *StreamConfig) (*Stream, error) {
	if config == nil {
		return nil, invalid("config is nil")
	}
	var s sentence
	stream := &Stream{headDim: config.Balance.HeadDim}
	raw := (*C.kvsift_balance_stream_config)(unsafe.Pointer(config))
	if err := s.check(C.go_stream_new(raw, s.raw(), &stream.c)); err != nil {
		return nil, err
	}
	return stream, nil
}

// Close frees the stream.
func (s *Stream) Close() error {
	if s == nil {
		return nil
	}
	if err := s.guard.enter(); err != nil {
		return err
	}
	defer s.leave()
	C.go_stream_free(s.c)
	s.c = nil
	return nil
}

func (s *Stream) enter() error {
	if s == nil {
		return ErrClosed
	}
	if err := s.guard.enter(); err != nil {
		return err
	}
	if s.c == nil {
		s.leave()
		return ErrClosed
	}
	return nil
}

func (s *Stream) check(status C.kvsift_status) error {
	if Status(status) == ok {
		return nil
	}
	return failure(status, C.kvsift_balance_stream_last_error(s.c.handle))
}

// Push appends tokens of a head of the views, which are indexed from 0.
func (s *Stream) Push(keys, values *View, head, tokens uint32) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if keys == nil || values == nil {
		return invalid("keys or values is nil")
	}
	e := extent{1, uint64(tokens), uint64(head) + 1, uint64(s.headDim)}
	if err := keys.check("keys", e); err != nil {
		return err
	}
	if err := values.check("values", e); err != nil {
		return err
	}
	keys.shape(&s.c.keys)
	values.shape(&s.c.values)
	return s.check(C.go_stream_push(s.c, keys.rows(), keys.rowScales(), values.rows(), values.rowScales(),
		C.uint32_t(head), C.uint32_t(tokens)))
}

// Attend is attention of one query over the weighted cache as it is now.
func (s *Stream) Attend(scale float32, query, out []float32) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := checkLength("query", len(query), int(s.headDim)); err != nil {
		return err
	}
	if err := checkLength("out", len(out), int(s.headDim)); err != nil {
		return err
	}
	status := C.go_stream_attend(s.c, C.uint32_t(s.headDim), C.float(scale), floats(query), floats(out))
	if Status(status) != ok && s.c.error.status == status {
		return failure(status, &s.c.error.message[0])
	}
	return s.check(status)
}

// AppendTokens appends the tokens that the weighted cache's numerator holds now to dst, with their weights.
func (s *Stream) AppendTokens(dst []uint32, weights []float32) ([]uint32, []float32, error) {
	if err := s.enter(); err != nil {
		return dst, weights, err
	}
	defer s.leave()
	if err := s.check(C.go_stream_read(s.c)); err != nil {
		return dst, weights, err
	}
	v := &s.c.view
	n := int(v.numerator.count)
	if n == 0 {
		return dst, weights, nil
	}
	tokens := unsafe.Slice((*uint32)(unsafe.Pointer(v.tokens)), int(v.cache.tokens))
	for _, row := range unsafe.Slice((*uint32)(unsafe.Pointer(v.numerator.index)), n) {
		dst = append(dst, tokens[row])
	}
	return dst, append(weights, unsafe.Slice((*float32)(unsafe.Pointer(v.numerator.weight)), n)...), nil
}

// Count is tokens pushed, rows in use now, and the most rows there can ever be.
func (s *Stream) Count() (tokens, rows, most uint32, err error) {
	if err := s.enter(); err != nil {
		return 0, 0, 0, err
	}
	defer s.leave()
	err = s.check(C.go_stream_count(s.c))
	return uint32(s.c.tokens), uint32(s.c.rows), uint32(s.c.most), err
}

// Truncate forgets tokens from `tokens` on.
func (s *Stream) Truncate(tokens uint32) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.check(C.go_stream_truncate(s.c, C.uint32_t(tokens)))
}

// Fork makes an independent copy, which must be closed too.
func (s *Stream) Fork() (*Stream, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	copied := &Stream{headDim: s.headDim}
	if err := s.check(C.go_stream_fork(s.c, &copied.c)); err != nil {
		return nil, err
	}
	return copied, nil
}

// SnapshotSize is how many bytes SnapshotSave writes now.
func (s *Stream) SnapshotSize() (uint64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	err := s.check(C.go_stream_snapshot_size(s.c))
	return uint64(s.c.count), err
}

// SnapshotSave writes the state to buffer and returns how many bytes that took.
func (s *Stream) SnapshotSave(buffer []byte) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := s.check(C.go_stream_snapshot_save(s.c, start(buffer), C.uint64_t(len(buffer)))); err != nil {
		return 0, err
	}
	return int(s.c.count), nil
}

// SnapshotLoad reads the state of a stream of the same configuration.
func (s *Stream) SnapshotLoad(buffer []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.check(C.go_stream_snapshot_load(s.c, start(buffer), C.uint64_t(len(buffer))))
}

// Stats are counters since NewStream.
func (s *Stream) Stats() (BalanceStats, error) {
	if err := s.enter(); err != nil {
		return BalanceStats{}, err
	}
	defer s.leave()
	err := s.check(C.go_stream_stats(s.c))
	return *(*BalanceStats)(unsafe.Pointer(&s.c.stats)), err
}
