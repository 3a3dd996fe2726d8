// Package kvsift decides which blocks of a KV cache attention needs, token by token.
//
// It is a thin layer over the C library: every call checks its slices against the shapes and hands them on, and
// allocates nothing unless it fails. The C header says what each call does; the names are the same.
//
// Objects live in C memory and must be closed. One goroutine may use an object at a time; a second one is answered with
// ErrBusy. Misuse (a nil or closed handle, a slice that is too short) is answered with an error, never with undefined
// behaviour.
package kvsift

/*
#cgo pkg-config: --static kvsift
#include "shim.h"
*/
import "C"

import "unsafe"

// Version is the library's: major, minor, patch.
func Version() (major, minor, patch int) {
	v := uint32(C.kvsift_version())
	return int(v >> 16), int(v >> 8 & 255), int(v & 255)
}

// BuildInfo tells what the library was built with and what it uses here.
type BuildInfo struct {
	Levels string // instruction sets compiled in, such as "scalar avx2 avx512"
	Level  string // the one in use
	CUDA   bool
}

// GetBuildInfo tells what the library was built with.
func GetBuildInfo() (BuildInfo, error) {
	var info C.kvsift_build_info
	info.struct_size = C.uint32_t(unsafe.Sizeof(info))
	if err := check(C.kvsift_get_build_info(&info)); err != nil {
		return BuildInfo{}, err
	}
	return BuildInfo{C.GoString(info.levels), C.GoString(info.level), info.cuda != 0}, nil
}

// String is the library's name of a method, such as "page-stats"; empty for an unknown one.
func (m Method) String() string {
	return C.GoString(C.kvsift_method_name(C.kvsift_method(m)))
}

// MethodFromName finds a method by its name.
func MethodFromName(name string) (Method, error) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	var method C.kvsift_method
	err := check(C.kvsift_method_from_name(text, &method))
	return Method(method), err
}

// MergeAttention merges partial attention b into a, both of one query head, and returns the log-sum-exp of both.
func MergeAttention(a []float32, logSumA float32, b []float32, logSumB float32) (float32, error) {
	if len(a) == 0 || len(a) > MaxHeadDim {
		return 0, invalid("a has %d elements, not 1 .. %d", len(a), MaxHeadDim)
	}
	if err := checkLength("b", len(b), len(a)); err != nil {
		return 0, err
	}
	sum := C.float(logSumA)
	status := C.kvsift_merge_attention(C.uint32_t(len(a)), floats(a), &sum, floats(b), C.float(logSumB))
	return float32(sum), check(status)
}

// NewConfig is a configuration with the defaults that the method's paper has. Layers, QueryHeads, KVHeads, HeadDim
// and MaxTokens must be set.
func NewConfig(method Method) (Config, error) {
	var config Config
	config.structSize = uint32(unsafe.Sizeof(config))
	err := check(C.kvsift_policy_config_init(config.raw(), C.kvsift_method(method)))
	return config, err
}

// SnapKVProfile sets Window, PoolKernel and Pooling to one of the SnapKV... constants.
func (c *Config) SnapKVProfile(profile uint32) error {
	return check(C.kvsift_policy_config_snapkv(c.raw(), C.uint32_t(profile)))
}

// PredictorFast sets the cheaper forms of the AttentionPredictor that pay.
func (c *Config) PredictorFast() error {
	return check(C.kvsift_policy_config_predictor_fast(c.raw()))
}

// ArenaSize is how many bytes of C memory a policy takes.
func (c *Config) ArenaSize() (uint64, error) {
	var s sentence
	var bytes, alignment C.uint64_t
	status := C.go_arena_size(c.raw(), s.raw(), &bytes, &alignment)
	return uint64(bytes), s.check(status)
}

func (c *Config) raw() *C.kvsift_policy_config {
	return (*C.kvsift_policy_config)(unsafe.Pointer(c))
}
