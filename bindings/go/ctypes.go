//go:build ignore

// Input of `go tool cgo -godefs`: ../generate.sh makes zlayout.go of it and checks that no enumerator is missing.

package kvsift

/*
#include "../kvsift_all.h"
*/
import "C"

type (
	Status        C.kvsift_status
	Type          C.kvsift_type
	Method        C.kvsift_method
	Grouping      uint32
	Tail          uint32
	Pooling       uint32
	Range         C.kvsift_range
	Config        C.kvsift_policy_config
	Info          C.kvsift_policy_info
	Stats         C.kvsift_stats
	BalanceConfig C.kvsift_balance_config
	BalanceStats  C.kvsift_balance_stats
	StreamConfig  C.kvsift_balance_stream_config
	StoreConfig   C.kvsift_store_config
	StoreInfo     C.kvsift_store_info
	StoreStats    C.kvsift_store_stats
	StoreEvent    C.kvsift_store_event
	Ticket        C.kvsift_ticket
)

const (
	ArenaAlignment = C.KVSIFT_ARENA_ALIGNMENT
	MaxHeadDim     = C.KVSIFT_MAX_HEAD_DIM
	MaxGroup       = C.KVSIFT_MAX_GROUP
	MaxLayers      = C.KVSIFT_MAX_LAYERS
	MaxTokens      = C.KVSIFT_MAX_TOKENS
	DenseOff       = C.KVSIFT_DENSE_OFF
	errorBytes     = C.KVSIFT_ERROR_BYTES

	ok                   Status = C.KVSIFT_OK
	ErrInvalidArgument   Status = C.KVSIFT_INVALID_ARGUMENT
	ErrInvalidStructSize Status = C.KVSIFT_INVALID_STRUCT_SIZE
	ErrArenaTooSmall     Status = C.KVSIFT_ARENA_TOO_SMALL
	ErrMisaligned        Status = C.KVSIFT_MISALIGNED
	ErrNotFinite         Status = C.KVSIFT_NOT_FINITE
	ErrOutOfOrder        Status = C.KVSIFT_OUT_OF_ORDER
	ErrCapacity          Status = C.KVSIFT_CAPACITY
	ErrRollback          Status = C.KVSIFT_ROLLBACK
	ErrUnsupported       Status = C.KVSIFT_UNSUPPORTED
	ErrCorrupt           Status = C.KVSIFT_CORRUPT
	ErrVersionMismatch   Status = C.KVSIFT_VERSION_MISMATCH
	ErrConfigMismatch    Status = C.KVSIFT_CONFIG_MISMATCH
	ErrIO                Status = C.KVSIFT_IO
	ErrNoDevice          Status = C.KVSIFT_NO_DEVICE
	ErrDevice            Status = C.KVSIFT_DEVICE

	TypeF32  Type = C.KVSIFT_F32
	TypeF16  Type = C.KVSIFT_F16
	TypeBF16 Type = C.KVSIFT_BF16
	TypeI8   Type = C.KVSIFT_I8

	Full               Method = C.KVSIFT_METHOD_FULL
	Streaming          Method = C.KVSIFT_METHOD_STREAMING
	H2O                Method = C.KVSIFT_METHOD_H2O
	SnapKV             Method = C.KVSIFT_METHOD_SNAPKV
	PyramidKV          Method = C.KVSIFT_METHOD_PYRAMIDKV
	Quest              Method = C.KVSIFT_METHOD_QUEST
	PageStats          Method = C.KVSIFT_METHOD_PAGE_STATS
	EMA                Method = C.KVSIFT_METHOD_EMA
	Uniform            Method = C.KVSIFT_METHOD_UNIFORM
	AttentionPredictor Method = C.KVSIFT_METHOD_ATTENTION_PREDICTOR
	Balance            Method = C.KVSIFT_METHOD_BALANCE
	methodCount        Method = C.KVSIFT_METHOD_COUNT

	GroupQueryHead Grouping = C.KVSIFT_GROUP_QUERY_HEAD
	GroupMean      Grouping = C.KVSIFT_GROUP_MEAN
	GroupMax       Grouping = C.KVSIFT_GROUP_MAX

	TailNone    Tail = C.KVSIFT_TAIL_NONE
	TailMoments Tail = C.KVSIFT_TAIL_MOMENTS
	TailBalance Tail = C.KVSIFT_TAIL_BALANCE

	PoolAvg Pooling = C.KVSIFT_POOL_AVG
	PoolMax Pooling = C.KVSIFT_POOL_MAX

	SnapKV32x5Avg = C.KVSIFT_SNAPKV_32_5_AVG
	SnapKV32x7Max = C.KVSIFT_SNAPKV_32_7_MAX
	SnapKV64x5Avg = C.KVSIFT_SNAPKV_64_5_AVG
	SnapKV8x7Max  = C.KVSIFT_SNAPKV_8_7_MAX

	NeedsKeys      = C.KVSIFT_NEEDS_KEYS
	NeedsValues    = C.KVSIFT_NEEDS_VALUES
	NeedsAttention = C.KVSIFT_NEEDS_ATTENTION
	NeedsMass      = C.KVSIFT_NEEDS_MASS
	NeedsQuery     = C.KVSIFT_NEEDS_QUERY

	BalancePractical   = C.KVSIFT_BALANCE_PRACTICAL
	BalanceTheory      = C.KVSIFT_BALANCE_THEORY
	BalanceUniform     = C.KVSIFT_BALANCE_UNIFORM
	BalancePermutation = C.KVSIFT_BALANCE_PERMUTATION
	BalanceRelative    = C.KVSIFT_BALANCE_RELATIVE
	BalanceGraded      = C.KVSIFT_BALANCE_GRADED
	BalanceCublas      = C.KVSIFT_BALANCE_CUBLAS
	BalanceNormalised  = C.KVSIFT_BALANCE_NORMALISED
	BalancePublished   = C.KVSIFT_BALANCE_PUBLISHED

	BalanceMaxHalvings = C.KVSIFT_BALANCE_MAX_HALVINGS
	BalanceMinGroup    = C.KVSIFT_BALANCE_MIN_GROUP
	BalanceMaxGroup    = C.KVSIFT_BALANCE_MAX_GROUP
	BalanceMaxBatch    = C.KVSIFT_BALANCE_MAX_BATCH
	BalanceMaxBuckets  = C.KVSIFT_BALANCE_MAX_BUCKETS

	StoreFile      = C.KVSIFT_STORE_FILE
	StoreHost      = C.KVSIFT_STORE_HOST
	StoreCustom    = C.KVSIFT_STORE_CUSTOM
	StoreIOAuto    = C.KVSIFT_STORE_IO_AUTO
	StoreIOUring   = C.KVSIFT_STORE_IO_URING
	StoreIOThreads = C.KVSIFT_STORE_IO_THREADS
	StoreNoLimit   = C.KVSIFT_STORE_NO_LIMIT

	StoreEventRead     = C.KVSIFT_STORE_EVENT_READ
	StoreEventWrite    = C.KVSIFT_STORE_EVENT_WRITE
	StoreEventCommit   = C.KVSIFT_STORE_EVENT_COMMIT
	StoreEventPrefetch = C.KVSIFT_STORE_EVENT_PREFETCH
	StoreEventResolve  = C.KVSIFT_STORE_EVENT_RESOLVE
	StoreEventWait     = C.KVSIFT_STORE_EVENT_WAIT
	StoreEventAppend   = C.KVSIFT_STORE_EVENT_APPEND
)
