// A stand-in for libcuda.so.1 that runs the library's kernels on the emulator. Device memory is host memory between guard
// pages that only kernels and copies may touch; what a stream is given is done when the stream is waited for; a capture
// keeps the work for its graph.
#include "mock_driver.h"

#include <cuda.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "emulation/emulator.h"
#include "emulation/races.h"

namespace {

using Work = std::vector<std::function<void()>>;
using emulator::races::Clock;

// Work, and what the host had waited for when it gave it.
struct Piece {
  std::function<void()> work;
  Clock seen;
};

struct Stream {
  std::deque<Piece> pending;
  Work captured;
  std::uint64_t done = 0;  // pieces of work
  bool capturing = false;
  Clock seen;  // what is done before its next piece, other streams' too
};

void merge(Clock *into, const Clock &other) {
  for (const auto &place : other) {
    std::uint64_t &own = (*into)[place.first];
    if (own < place.second) own = place.second;
  }
}

// A place in a stream.
struct Event {
  Stream *stream = nullptr;  // null: not recorded yet
  std::uint64_t place = 0;
  std::shared_ptr<double> seconds;  // when the stream came there
  std::shared_ptr<Clock> seen;      // what is done then
};

struct Memory {
  char *begin;
  std::size_t bytes, mapped;
  bool device;
};

struct Rule {
  std::string function;
  std::uint32_t nth = 0;
  std::int32_t result = 0;
};

struct Mock {
  std::map<std::string, std::uint64_t> calls;
  std::vector<Memory> memory;
  Rule rule;
  bool asked = false;
  CUcontext context = nullptr;
  Stream default_stream;
  std::uint32_t running = 0;  // pieces of work, each begun by the one before
  Clock seen;                 // by the host
};

// Never destroyed: a program may close its device while it exits.
Mock &mock = *new Mock;

constexpr std::size_t kPage = 4096;

// Counts the call; what it must answer instead of doing its work.
CUresult enter(const char *function) {
  if (!mock.asked) {
    mock.asked = true;
    char name[64];
    unsigned nth;
    int result;
    const char *text = std::getenv("KVSIFT_MOCK_FAIL");
    if (text != nullptr && std::sscanf(text, "%63[^:]:%u:%d", name, &nth, &result) == 3) mock.rule = {name, nth, result};
  }
  ++mock.calls[function];
  if (mock.rule.nth > 0 && mock.rule.function == function && --mock.rule.nth == 0) {
    return static_cast<CUresult>(mock.rule.result);
  }
  return CUDA_SUCCESS;
}

#define ENTER(function)                                        \
  if (const CUresult told = enter(#function); told != CUDA_SUCCESS) return told

Stream *stream_of(CUstream stream) {
  return stream == nullptr ? &mock.default_stream : reinterpret_cast<Stream *>(stream);
}

// Device memory can be touched only while work runs.
void protect(int how) {
  for (const Memory &m : mock.memory) {
    if (m.device) mprotect(m.begin, m.mapped, how);
  }
}

double seconds_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Does the stream's work up to a place, which may have other streams catch up first.
void run_to(Stream *stream, std::uint64_t place) {
  if (stream->done >= place) return;
  if (mock.running++ == 0) protect(PROT_READ | PROT_WRITE);
  while (stream->done < place) {
    const Piece piece = std::move(stream->pending.front());
    stream->pending.pop_front();
    merge(&stream->seen, piece.seen);
    emulator::races::begin_work(stream, stream->done + 1, stream->seen);
    piece.work();
    stream->seen[stream] = ++stream->done;
  }
  if (--mock.running == 0) protect(PROT_NONE);
}

std::uint64_t end_of(const Stream &stream) { return stream.done + stream.pending.size(); }

// The host waits.
void drain(Stream *stream) {
  run_to(stream, end_of(*stream));
  merge(&mock.seen, stream->seen);
}

CUresult submit(CUstream stream, std::function<void()> work) {
  Stream *s = stream_of(stream);
  if (s->capturing) s->captured.push_back(std::move(work));
  else s->pending.push_back(Piece{std::move(work), mock.seen});
  return CUDA_SUCCESS;
}

// The end of an allocation lies before a guard page.
char *allocate(std::size_t bytes, bool device) {
  const std::size_t rounded = (bytes + 255) / 256 * 256, mapped = (rounded + kPage - 1) / kPage * kPage;
  auto *base = static_cast<char *>(
      mmap(nullptr, mapped + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (base == MAP_FAILED) return nullptr;
  std::memset(base, 0xcd, mapped);
  mprotect(base + mapped, kPage, PROT_NONE);
  mock.memory.push_back(Memory{base, rounded, mapped, device});
  if (device) mprotect(base, mapped, PROT_NONE);
  emulator::races::know(base, mapped);
  return base + (mapped - rounded);
}

CUresult release(void *pointer) {
  for (std::size_t i = 0; i < mock.memory.size(); ++i) {
    const Memory m = mock.memory[i];
    if (pointer < m.begin || pointer >= m.begin + m.mapped) continue;
    munmap(m.begin, m.mapped + kPage);
    emulator::races::forget(m.begin, m.mapped);
    mock.memory.erase(mock.memory.begin() + static_cast<std::ptrdiff_t>(i));
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

bool is_ours(const void *pointer, std::size_t bytes, bool device) {
  for (const Memory &m : mock.memory) {
    const char *p = static_cast<const char *>(pointer);
    if (p >= m.begin && p + bytes <= m.begin + m.mapped) return m.device == device;
  }
  return false;
}

void *host(CUdeviceptr pointer) { return reinterpret_cast<void *>(pointer); }

void copy(void *to, const void *from, std::size_t bytes) {
  emulator::races::work_reads(from, bytes);
  emulator::races::work_writes(to, bytes);
  std::memmove(to, from, bytes);
}

}  // namespace

std::int32_t kvsift_mock_enter(const char *function) { return enter(function); }
bool kvsift_mock_on_device(const void *pointer, std::uint64_t bytes) { return is_ours(pointer, bytes, true); }
void kvsift_mock_submit(void *stream, std::function<void()> work) { submit(static_cast<CUstream>(stream), std::move(work)); }

extern "C" {

void kvsift_mock_fail(const char *function, uint32_t nth, int32_t result) { mock.rule = {function, nth, result}; }

bool kvsift_mock_finds_races() {
#ifdef KVSIFT_RACES
  return true;
#else
  return false;
#endif
}

uint64_t kvsift_mock_calls(const char *function) {
  if (function != nullptr) return mock.calls[function];
  std::uint64_t calls = 0;
  for (const char *slow : {"cuMemAlloc", "cuMemFree", "cuMemHostAlloc", "cuMemFreeHost", "cuStreamSynchronize",
                           "cuCtxSynchronize", "cuStreamCreate", "cuEventCreate", "cuEventSynchronize", "cuLibraryLoadData",
                           "cuKernelGetFunction", "cublasLtCreate", "cublasLtMatmulDescCreate", "cublasLtMatrixLayoutCreate",
                           "cublasLtMatmulPreferenceCreate", "cublasLtMatmulAlgoGetHeuristic"}) {
    calls += mock.calls[slow];
  }
  return calls;
}

CUresult cuInit(unsigned) {
  ENTER(cuInit);
  return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int *version) {
  ENTER(cuDriverGetVersion);
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) {
  ENTER(cuDeviceGetCount);
  const char *text = std::getenv("KVSIFT_MOCK_DEVICES");
  *count = text == nullptr ? 1 : std::atoi(text);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  ENTER(cuDeviceGet);
  *device = ordinal;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *name, int bytes, CUdevice) {
  ENTER(cuDeviceGetName);
  std::snprintf(name, static_cast<std::size_t>(bytes), "emulator (no GPU)");
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
  ENTER(cuDeviceGetAttribute);
  const char *few = std::getenv("KVSIFT_MOCK_MULTIPROCESSORS");
  const char *shared = std::getenv("KVSIFT_MOCK_SHARED_BYTES");
  const int multiprocessors = few != nullptr ? std::atoi(few) : 3;
  const int shared_bytes = shared != nullptr ? std::atoi(shared) : 232448;
  *value = attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT                   ? multiprocessors
           : attribute == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN ? shared_bytes
                                                                                  : 0;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
  ENTER(cuDevicePrimaryCtxRetain);
  *context = reinterpret_cast<CUcontext>(&mock);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  ENTER(cuDevicePrimaryCtxRelease);
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
  ENTER(cuCtxSetCurrent);
  mock.context = context;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) {
  ENTER(cuCtxGetCurrent);
  *context = mock.context;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) {
  ENTER(cuCtxGetDevice);
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
  ENTER(cuCtxSynchronize);
  drain(&mock.default_stream);
  return CUDA_SUCCESS;
}

// Modules and kernels. A handle is the emulated kernel itself.
CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *, void **, unsigned, CUlibraryOption *,
                           void **, unsigned) {
  ENTER(cuLibraryLoadData);
  static const unsigned char kMagic[] = {0x50, 0xed, 0x55, 0xba};
  if (std::memcmp(code, kMagic, sizeof kMagic) != 0) return CUDA_ERROR_INVALID_IMAGE;
  *library = reinterpret_cast<CUlibrary>(&mock);
  return CUDA_SUCCESS;
}
CUresult cuLibraryUnload(CUlibrary) {
  ENTER(cuLibraryUnload);
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary, const char *name) {
  ENTER(cuLibraryGetKernel);
  *kernel = reinterpret_cast<CUkernel>(const_cast<emulator::Kernel *>(emulator::find(name)));
  return *kernel == nullptr ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
  ENTER(cuKernelGetFunction);
  *function = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute attribute, int value) {
  ENTER(cuFuncSetAttribute);
  const char *limit = std::getenv("KVSIFT_MOCK_SHARED_LIMIT");
  const int most = limit != nullptr ? std::atoi(limit) : 232448;
  return attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value > most ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **) {
  ENTER(cuLaunchKernelEx);
  const auto *kernel = reinterpret_cast<const emulator::Kernel *>(function);
  const CUlaunchConfig c = *config;
  if (c.gridDimX == 0 || c.gridDimY == 0 || c.gridDimZ == 0 || c.gridDimY > 65535 || c.gridDimZ > 65535) return CUDA_ERROR_INVALID_VALUE;
  const auto *args = static_cast<const char *>(parameters[0]);
  std::vector<char> copy(args, args + kernel->args_bytes);
  return submit(c.hStream, [=] {
    alignas(16) static char aligned[4096];
    std::memcpy(aligned, copy.data(), copy.size());
    emulator::launch(*kernel, {c.gridDimX, c.gridDimY, c.gridDimZ}, {c.blockDimX, c.blockDimY, c.blockDimZ}, c.sharedMemBytes,
                     aligned);
  });
}

// Memory.
CUresult cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
  ENTER(cuMemAlloc);
  *pointer = reinterpret_cast<CUdeviceptr>(allocate(bytes, true));
  return *pointer == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr pointer) {
  ENTER(cuMemFree);
  return release(host(pointer));
}
CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
  ENTER(cuMemHostAlloc);
  *pointer = allocate(bytes, false);
  return *pointer == nullptr ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *pointer) {
  ENTER(cuMemFreeHost);
  return release(pointer);
}
CUresult cuMemHostGetDevicePointer(CUdeviceptr *pointer, void *memory, unsigned) {
  ENTER(cuMemHostGetDevicePointer);
  if (!is_ours(memory, 1, false)) return CUDA_ERROR_INVALID_VALUE;
  *pointer = reinterpret_cast<CUdeviceptr>(memory);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  ENTER(cuMemcpyHtoDAsync);
  if (!is_ours(host(to), bytes, true)) return CUDA_ERROR_INVALID_VALUE;
  if (is_ours(from, bytes, false)) return submit(stream, [=] { copy(host(to), from, bytes); });
  const auto *begin = static_cast<const char *>(from);
  std::vector<char> kept(begin, begin + bytes);
  return submit(stream, [=] { copy(host(to), kept.data(), bytes); });
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  ENTER(cuMemcpyDtoHAsync);
  if (!is_ours(host(from), bytes, true)) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, [=] { copy(to, host(from), bytes); });
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  ENTER(cuMemcpyDtoDAsync);
  if (!is_ours(host(to), bytes, true) || !is_ours(host(from), bytes, true)) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, [=] { copy(host(to), host(from), bytes); });
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  ENTER(cuMemsetD8Async);
  if (!is_ours(host(to), bytes, true)) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, [=] {
    emulator::races::work_writes(host(to), bytes);
    std::memset(host(to), value, bytes);
  });
}

// Streams and graphs.
CUresult cuStreamCreate(CUstream *stream, unsigned) {
  ENTER(cuStreamCreate);
  *stream = reinterpret_cast<CUstream>(new Stream);
  return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
  ENTER(cuStreamDestroy);
  drain(stream_of(stream));
  delete stream_of(stream);
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
  ENTER(cuStreamSynchronize);
  if (stream_of(stream)->capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  drain(stream_of(stream));
  return CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *event, unsigned) {
  ENTER(cuEventCreate);
  *event = reinterpret_cast<CUevent>(new Event);
  return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) {
  ENTER(cuEventDestroy);
  delete reinterpret_cast<Event *>(event);
  return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  ENTER(cuEventRecord);
  Event *e = reinterpret_cast<Event *>(event);
  Stream *s = stream_of(stream);
  if (s->capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  e->stream = s;
  e->seconds = std::make_shared<double>(0);
  e->seen = std::make_shared<Clock>();
  submit(stream, [=, seconds = e->seconds, seen = e->seen] {
    *seconds = seconds_now();
    *seen = s->seen;
    (*seen)[s] = s->done + 1;
  });
  e->place = end_of(*s);
  return CUDA_SUCCESS;
}
CUresult cuEventQuery(CUevent event) {
  ENTER(cuEventQuery);
  const Event *e = reinterpret_cast<Event *>(event);
  if (e->stream == nullptr) return CUDA_SUCCESS;
  if (e->stream->done < e->place) return CUDA_ERROR_NOT_READY;
  merge(&mock.seen, *e->seen);
  return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
  ENTER(cuEventSynchronize);
  const Event *e = reinterpret_cast<Event *>(event);
  if (e->stream == nullptr) return CUDA_SUCCESS;
  run_to(e->stream, e->place);
  merge(&mock.seen, *e->seen);
  return CUDA_SUCCESS;
}
CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end) {
  ENTER(cuEventElapsedTime);
  const Event *a = reinterpret_cast<Event *>(begin), *b = reinterpret_cast<Event *>(end);
  *milliseconds = static_cast<float>(1e3 * (*b->seconds - *a->seconds));
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  ENTER(cuStreamWaitEvent);
  const Event e = *reinterpret_cast<Event *>(event);
  if (e.stream == nullptr) return CUDA_SUCCESS;
  Stream *s = stream_of(stream);
  return submit(stream, [=] {
    run_to(e.stream, e.place);
    merge(&s->seen, *e.seen);
  });
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
  ENTER(cuStreamBeginCapture);
  if (stream == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  stream_of(stream)->capturing = true;
  stream_of(stream)->captured.clear();
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  ENTER(cuStreamEndCapture);
  Stream *s = stream_of(stream);
  s->capturing = false;
  *graph = reinterpret_cast<CUgraph>(new Work(std::move(s->captured)));
  s->captured = Work{};
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long) {
  ENTER(cuGraphInstantiateWithFlags);
  *exec = reinterpret_cast<CUgraphExec>(new Work(*reinterpret_cast<Work *>(graph)));
  return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  ENTER(cuGraphLaunch);
  const Work *work = reinterpret_cast<Work *>(exec);
  for (const auto &each : *work) submit(stream, each);
  return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec exec) {
  ENTER(cuGraphExecDestroy);
  delete reinterpret_cast<Work *>(exec);
  return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
  ENTER(cuGraphDestroy);
  delete reinterpret_cast<Work *>(graph);
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult result, const char **name) {
  switch (result) {
    case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case CUDA_ERROR_NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    default: *name = "CUDA_ERROR_UNKNOWN"; break;
  }
  return CUDA_SUCCESS;
}

}  // extern "C"
