#include "cuda/policy/create.h"

#include <cstring>
#include <new>

#include "cuda/attend/launch.h"
#include "cuda/methods/method.h"
#include "cuda/policy/choose.h"

namespace kvsift {
namespace {

// The image from here on is the same on both sides; before it lies struct Policy, of which only the counters count.
constexpr std::uint64_t kBody = align_up(sizeof(Policy));

CUdeviceptr address(const CudaPolicy &policy, std::uint64_t offset) {
  return reinterpret_cast<CUdeviceptr>(policy.image.base) + offset;
}

Progress *host_progress(Policy *policy) { return reinterpret_cast<Progress *>(&policy->tokens); }
const Progress *host_progress(const Policy *policy) { return reinterpret_cast<const Progress *>(&policy->tokens); }

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t), "struct Progress must lie over the counters");

std::uint64_t units_of(const Settings &s) { return std::uint64_t{s.sparse_layers} * s.c.kv_heads; }

kvsift_status clear_device(CudaPolicy *policy, void *stream) {
  const Driver &d = policy->device.driver;
  const CUresult result = d.fill(address(*policy, 0), 0, policy->image.room.bytes, static_cast<CUstream>(stream));
  return check(d, result, "cuMemsetD8Async", &policy->host.error);
}

kvsift_status start_method(CudaPolicy *policy, void *stream) {
  const Settings &s = policy->host.s;
  const CudaMethod &method = *cuda_method_of(s.c.method);
  const Launcher to{policy->device, stream, &policy->host.error};
  if (method.create != nullptr) {
    if (kvsift_status status = method.create(to, policy->image)) return status;
  }
  for (std::uint32_t layer = s.c.dense_layers; method.reset != nullptr && layer < s.c.layers; ++layer) {
    if (kvsift_status status = method.reset(to, Call{policy->image, layer, 0, 0}, s.c.kv_heads)) return status;
  }
  return KVSIFT_OK;
}

}  // namespace

kvsift_status reset_on_device(CudaPolicy *policy, void *stream) {
  Policy &host = policy->host;
  host.tokens = host.decode_steps = host.prompt_end = host.first_prompt = 0;
  host.selected_for.store(0, std::memory_order_relaxed);
  std::memset(policy->keys_seen.in(policy), 0, units_of(host.s) * sizeof(std::uint32_t));
  std::memset(policy->rows_seen.in(policy), 0, units_of(host.s) * sizeof(std::uint32_t));
  policy->present_layer = 0;
  *policy->fault = Fault{};
  policy->lost = KVSIFT_OK;
  kvsift_status status = clear_device(policy, stream);
  if (status == KVSIFT_OK) status = start_method(policy, stream);
  policy->lost = status;
  return status;
}

kvsift_status create_on_device(const CudaPlaces &places, const CudaArenas &arenas, void *stream, CudaPolicy **out,
                               kvsift_error *error) {
  CudaDevice device;
  if (kvsift_status s = open_device(&device, error)) return s;
  CUdeviceptr fault = 0;
  const CUresult result = device.driver.device_pointer(&fault, arenas.pinned, 0);
  kvsift_status status = check(device.driver, result, "cuMemHostGetDevicePointer", error);
  if (status == KVSIFT_OK) status = allow_attend_shared(device, places.settings, error);
  if (status == KVSIFT_OK) status = allow_choose_shared(device, places.settings, error);
  if (status != KVSIFT_OK) {
    close_device(&device);
    return status;
  }
  auto *policy = new (arenas.host) CudaPolicy();
  static_cast<PolicyPlaces &>(policy->host) = places.policy;
  policy->host.level = best_level();
  policy->device = device;
  policy->fault = static_cast<Fault *>(arenas.pinned);
  policy->bytes = places.host_bytes;
  policy->keys_seen = places.keys_seen;
  policy->rows_seen = places.rows_seen;
  policy->image = image_of(places, policy->host, static_cast<char *>(arenas.device), reinterpret_cast<Fault *>(fault));
  status = reset_on_device(policy, stream);
  if (status != KVSIFT_OK) {
    if (error != nullptr) *error = policy->host.error;
    close_device(&policy->device);
    return status;
  }
  policy->alive = kAliveOnDevice;
  *out = policy;
  return KVSIFT_OK;
}

void destroy_on_device(CudaPolicy *policy) {
  policy->alive = 0;
  release_products(&policy->products);
  close_device(&policy->device);
}

kvsift_status upload(CudaPolicy *policy, const Policy &from, void *stream) {
  const Driver &d = policy->device.driver;
  kvsift_error *error = &policy->host.error;
  const auto on = static_cast<CUstream>(stream);
  const auto *body = reinterpret_cast<const char *>(&from) + kBody;
  if (kvsift_status s = reset_on_device(policy, stream)) return s;
  policy->lost = KVSIFT_DEVICE;
  const CUresult copied = d.to_device(address(*policy, kBody), body, from.bytes - kBody, on);
  if (kvsift_status s = check(d, copied, "cuMemcpyHtoDAsync", error)) return s;
  const CUresult counted = d.to_device(address(*policy, policy->image.progress), host_progress(&from), sizeof(Progress), on);
  if (kvsift_status s = check(d, counted, "cuMemcpyHtoDAsync", error)) return s;
  std::memcpy(static_cast<void *>(host_progress(&policy->host)), host_progress(&from), sizeof(Progress));
  for (std::uint32_t layer = 0; layer < from.s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < from.s.c.kv_heads; ++head) {
      const Unit *unit = from.unit(layer, head);
      policy->seen(policy->keys_seen, layer + from.s.c.dense_layers)[head] = unit->keys_seen;
      policy->seen(policy->rows_seen, layer + from.s.c.dense_layers)[head] = unit->rows_seen;
    }
  }
  policy->lost = KVSIFT_OK;
  return KVSIFT_OK;
}

kvsift_status download(const CudaPolicy &policy, Policy *to, void *stream, kvsift_error *error) {
  const Driver &d = policy.device.driver;
  const auto on = static_cast<CUstream>(stream);
  const CUresult copied = d.to_host(reinterpret_cast<char *>(to) + kBody, address(policy, kBody), to->bytes - kBody, on);
  if (kvsift_status s = check(d, copied, "cuMemcpyDtoHAsync", error)) return s;
  const CUresult counted = d.to_host(host_progress(to), address(policy, policy.image.progress), sizeof(Progress), on);
  return check(d, counted, "cuMemcpyDtoHAsync", error);
}

kvsift_status copy_policy(const CudaPolicy &from, CudaPolicy *to, void *stream) {
  const Driver &d = to->device.driver;
  const CUresult copied = d.copy(address(*to, 0), address(from, 0), from.image.room.bytes, static_cast<CUstream>(stream));
  if (kvsift_status s = check(d, copied, "cuMemcpyDtoDAsync", &to->host.error)) return s;
  std::memcpy(static_cast<void *>(host_progress(&to->host)), host_progress(&from.host), sizeof(Progress));
  const std::uint64_t counts = units_of(from.host.s) * sizeof(std::uint32_t);
  std::memcpy(to->keys_seen.in(to), from.keys_seen.in(&from), counts);
  std::memcpy(to->rows_seen.in(to), from.rows_seen.in(&from), counts);
  return KVSIFT_OK;
}

}  // namespace kvsift
