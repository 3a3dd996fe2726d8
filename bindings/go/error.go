package kvsift

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// Errors that the library never sees.
var (
	ErrClosed = errors.New("kvsift: the handle is nil or closed")
	ErrBusy   = errors.New("kvsift: another goroutine is using the handle")
	ErrStale  = errors.New("kvsift: the selection or cache belongs to an earlier call")
	ErrInUse  = errors.New("kvsift: policies still use the predictor")
)

// Error is a failed call: a status, for errors.Is(err, kvsift.ErrCapacity) and the like, and the sentence that names the
// argument and the value.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string { return "kvsift: " + e.Message }

// Unwrap gives the status, for errors.Is.
func (e *Error) Unwrap() error { return e.Status }

func (s Status) Error() string { return C.GoString(C.kvsift_status_string(C.kvsift_status(s))) }

// A place for the sentence of calls without a handle.
type sentence C.kvsift_error

func (s *sentence) raw() *C.kvsift_error { return (*C.kvsift_error)(unsafe.Pointer(s)) }

func (s *sentence) check(status C.kvsift_status) error {
	if Status(status) == ok {
		return nil
	}
	return failure(status, &s.message[0])
}

// For calls that leave no sentence.
func check(status C.kvsift_status) error {
	if Status(status) == ok {
		return nil
	}
	return failure(status, nil)
}

func failure(status C.kvsift_status, message *C.char) error {
	e := &Error{Status: Status(status)}
	if message != nil {
		e.Message = C.GoString(message)
	}
	if e.Message == "" {
		e.Message = e.Status.Error()
	}
	return e
}

func invalid(format string, words ...interface{}) error {
	return &Error{ErrInvalidArgument, fmt.Sprintf(format, words...)}
}

// A slice against the length that its shape asks for.
func checkLength(name string, length, wanted int) error {
	return checkShape(name, length, uint64(wanted))
}

// For a product (times), which may be more than an int holds.
func checkShape(name string, length int, wanted uint64) error {
	if uint64(length) == wanted {
		return nil
	}
	return invalid("%s has %d elements, its shape has %d", name, length, wanted)
}
