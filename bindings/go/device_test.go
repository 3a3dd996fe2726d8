package kvsift

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// memoryDevice is a slow tier in Go memory that moves at most `most` bytes at a time, and fails as it is told.
type memoryDevice struct {
	sync.Mutex
	bytes               []byte
	most, calls, synced int
	failure             error
	panics              bool
}

func (d *memoryDevice) move(offset int64, size int, write bool, transfer func([]byte) int) (int, error) {
	d.Lock()
	defer d.Unlock()
	d.calls++
	d.panic()
	if d.failure != nil {
		return 0, d.failure
	}
	if d.most > 0 && size > d.most {
		size = d.most
	}
	end := offset + int64(size)
	if write && end > int64(len(d.bytes)) {
		d.bytes = append(d.bytes, make([]byte, end-int64(len(d.bytes)))...)
	}
	if end > int64(len(d.bytes)) {
		return 0, io.EOF
	}
	return transfer(d.bytes[offset:end]), nil
}

func (d *memoryDevice) ReadAt(p []byte, offset int64) (int, error) {
	return d.move(offset, len(p), false, func(part []byte) int { return copy(p, part) })
}

func (d *memoryDevice) WriteAt(p []byte, offset int64) (int, error) {
	return d.move(offset, len(p), true, func(part []byte) int { return copy(part, p) })
}

func (d *memoryDevice) Sync() error {
	d.Lock()
	defer d.Unlock()
	d.synced++
	d.panic()
	return d.failure
}

func (d *memoryDevice) panic() {
	if d.panics {
		panic("the device is broken")
	}
}

func (d *memoryDevice) breaks(panics bool) {
	d.Lock()
	defer d.Unlock()
	d.panics = panics
}

func (d *memoryDevice) fail(err error) {
	d.Lock()
	defer d.Unlock()
	d.failure = err
}

func TestStoreOnADevice(t *testing.T) {
	config := storeConfig(t, StoreCustom)
	device := &memoryDevice{most: 3000}
	store, err := CreateStoreOn(&config, device)
	must(t, err)
	checkStore(t, store)
	must(t, store.Close())
	must(t, store.Close())
	if device.synced == 0 || device.calls == 0 {
		t.Fatal("the device was not used")
	}
	store, err = OpenStoreOn(&config, device)
	must(t, err)
	if info, err := store.Info(); err != nil || info.Tokens != storeTokens {
		t.Fatal(info, err)
	}
	must(t, store.Close())
	config.BlockTokens = 32
	_, err = OpenStoreOn(&config, device)
	refused(t, err, ErrConfigMismatch, "")
}

func TestStoreOnAnOpenFile(t *testing.T) {
	config := storeConfig(t, StoreCustom)
	file, err := os.Create(filepath.Join(t.TempDir(), "store.bin"))
	must(t, err)
	defer file.Close()
	store, err := CreateStoreOn(&config, file)
	must(t, err)
	checkStore(t, store)
	must(t, store.Close())
}

func TestStoreOnADeviceThatFails(t *testing.T) {
	config := storeConfig(t, StoreCustom)
	device := &memoryDevice{}
	store, err := CreateStoreOn(&config, device)
	must(t, err)
	rows := F32(random(1, 64*storeDim), storeDim, 0)
	device.fail(fmt.Errorf("no room: %w", syscall.ENOSPC))
	err = store.Append(0, 0, 64, &rows, &rows)
	if err == nil {
		err = store.Flush()
	}
	refused(t, err, ErrIO, "28")
	device.fail(errors.New("no errno"))
	refused(t, store.Flush(), ErrIO, "5")
	device.fail(nil)
	must(t, store.Flush())
	must(t, store.Close())

	device.fail(io.ErrUnexpectedEOF)
	_, err = OpenStoreOn(&config, device)
	refused(t, err, ErrIO, "")
	_, err = CreateStoreOn(&config, nil)
	refused(t, err, ErrInvalidArgument, "nil")
	_, err = CreateStore(&config, "somewhere")
	refused(t, err, ErrInvalidArgument, "CreateStoreOn")
	files := storeConfig(t, StoreFile)
	_, err = CreateStoreOn(&files, device)
	refused(t, err, ErrInvalidArgument, "StoreCustom")
}

// On the library's threads, and on the caller's, where the library must get to its end.
func TestStoreOnADeviceThatPanics(t *testing.T) {
	config := storeConfig(t, StoreCustom)
	device := &memoryDevice{panics: true}
	_, err := CreateStoreOn(&config, device)
	refused(t, err, ErrIO, "5")
	device.breaks(false)
	store, err := CreateStoreOn(&config, device)
	must(t, err)
	rows := F32(random(1, 64*storeDim), storeDim, 0)
	must(t, store.Append(0, 0, 64, &rows, &rows))
	must(t, store.Flush())
	device.breaks(true)
	refused(t, store.Truncate(32), ErrIO, "5")
	refused(t, store.Flush(), ErrIO, "5")
	device.breaks(false)
	must(t, store.Flush())
	must(t, store.Truncate(32))
	device.breaks(true)
	refused(t, store.Close(), ErrIO, "sync")
}
