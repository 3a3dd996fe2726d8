package kvsift

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Reads a NumPy .npy file (version 1, little-endian, C order), one of those that the C tests read; kind is "f4", "i4" or
// "u1". nil where there is no such file.
func readNpy(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) < 10 || string(data[:8]) != "\x93NUMPY\x01\x00" {
		return nil, fmt.Errorf("%s is no .npy file", path)
	}
	start := 10 + int(binary.LittleEndian.Uint16(data[8:]))
	header := string(data[10:start])
	if !strings.Contains(header, kind+"'") || !strings.Contains(header, "'fortran_order': False") {
		return nil, fmt.Errorf("%s: %s, not %s", path, header, kind)
	}
	return data[start:], nil
}

func npyShape(path string) (shape []int, err error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	header := string(data[10 : 10+int(binary.LittleEndian.Uint16(data[8:]))])
	header = header[strings.Index(header, "'shape': (")+len("'shape': ("):]
	for _, word := range strings.Split(header[:strings.Index(header, ")")], ",") {
		if n, err := strconv.Atoi(strings.TrimSpace(word)); err == nil {
			shape = append(shape, n)
		}
	}
	return shape, nil
}

func toFloats(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

func toInts(data []byte) []int {
	values := make([]int, len(data)/4)
	for i := range values {
		values[i] = int(int32(binary.LittleEndian.Uint32(data[4*i:])))
	}
	return values
}
