package kvsift

// #include "shim_store.h"
import "C"

import (
	"errors"
	"io"
	"runtime/cgo"
	"syscall"
	"unsafe"
)

// Device is a slow tier of the caller's own; an *os.File is one. Its methods are called from several threads at a time, also
// after the call that asked for it has returned, until Close has. They must not use the store, nor keep the slices, which are
// memory of the library's. A short read without an error, or with io.EOF, ends with what is there. Where an error wraps a
// syscall.Errno the library says which; a panic counts as EIO. A method `Sync() error`, where there is one, makes durable what was
// written.
type Device interface {
	io.ReaderAt
	io.WriterAt
}

// CreateStoreOn makes an empty store on a device; the configuration is one for StoreCustom.
func CreateStoreOn(config *StoreConfig, device Device) (*Store, error) {
	return makeStoreOn(config, device, 1)
}

// OpenStoreOn opens what an earlier store left on a device.
func OpenStoreOn(config *StoreConfig, device Device) (*Store, error) {
	return makeStoreOn(config, device, 0)
}

func makeStoreOn(config *StoreConfig, device Device, fresh C.int) (*Store, error) {
	if config == nil || config.Backend != StoreCustom || device == nil {
		return nil, invalid("config or device is nil, or the config is not for StoreCustom")
	}
	// C keeps a number, which stands for the device.
	handle := cgo.NewHandle(device)
	store, err := makeStore(config, "", C.uintptr_t(handle), fresh)
	if err != nil {
		handle.Delete()
		return nil, err
	}
	store.device = handle
	return store, nil
}

//export kvsiftGoRead
func kvsiftGoRead(device C.uintptr_t, offset C.uint64_t, spans *C.kvsift_store_span, count C.uint32_t) C.int64_t {
	return transfer(deviceOf(device).ReadAt, offset, spans, count)
}

//export kvsiftGoWrite
func kvsiftGoWrite(device C.uintptr_t, offset C.uint64_t, spans *C.kvsift_store_span, count C.uint32_t) C.int64_t {
	return transfer(deviceOf(device).WriteAt, offset, spans, count)
}

//export kvsiftGoSync
func kvsiftGoSync(device C.uintptr_t) (result C.int32_t) {
	defer func() { result = C.int32_t(unlessPanic(recover(), int64(result))) }()
	syncer, ok := deviceOf(device).(interface{ Sync() error })
	if !ok {
		return 0
	}
	return C.int32_t(errnoOf(syncer.Sync()))
}

func deviceOf(device C.uintptr_t) Device { return cgo.Handle(device).Value().(Device) }

// Moves span after span; what is left where one comes short is asked for again.
func transfer(move func([]byte, int64) (int, error), offset C.uint64_t, spans *C.kvsift_store_span,
	count C.uint32_t) (result C.int64_t) {
	defer func() { result = C.int64_t(unlessPanic(recover(), int64(result))) }()
	done := int64(0)
	for _, span := range unsafe.Slice(spans, int(count)) {
		n, err := move(unsafe.Slice((*byte)(span.data), int(span.bytes)), int64(offset)+done)
		done += int64(n)
		if err != nil && !errors.Is(err, io.EOF) && done == 0 {
			return C.int64_t(errnoOf(err))
		}
		if err != nil || n < int(span.bytes) {
			break
		}
	}
	return C.int64_t(done)
}

// A panic must not unwind the library, which would be left in the middle of what it did.
func unlessPanic(panicked interface{}, result int64) int64 {
	if panicked != nil {
		return -int64(syscall.EIO)
	}
	return result
}

// An error as C has it: 0, or a negative errno.
func errnoOf(err error) int64 {
	if err == nil {
		return 0
	}
	errno := syscall.EIO
	if !errors.As(err, &errno) || errno == 0 {
		errno = syscall.EIO
	}
	return -int64(errno)
}
