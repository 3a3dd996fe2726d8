#include "cuda/store/mover.h"

namespace kvsift {

StoreSumArgs sums_of(const CudaStore &store, std::uint32_t layer) {
  StoreSumArgs args;
  const std::uint64_t bytes = store.g.slot_bytes;
  args.slots = store.slots + store.layers[layer].first_slot * bytes;
  args.sums = store.sums == nullptr ? nullptr : store.sums + store.first_record(layer);
  args.table = store.tables + store.first_record(layer);
  args.fault = store.fault_seen;
  args.slot_bytes = bytes;
  args.layer = layer;
  args.checks = 0;
  args.count = 0;
  return args;
}

kvsift_status launch_sums(CudaStore *store, StoreSumArgs *args, CUstream on) {
  const LaunchShape shape{args->count, 1, 1, kMoveThreads, 0};
  const kvsift_status status = launch(store->device, kKernel_store_sum, shape, on, *args, &store->error);
  if (status != KVSIFT_OK) store->lost = status;
  args->count = 0;
  return status;
}

Mover::Mover(CudaStore *store, std::uint32_t layer, CUstream on, bool quiet)
    : store_(store), first_record_(store->first_record(layer)), first_slot_(store->layers[layer].first_slot), on_(on) {
  const std::uint64_t bytes = store->g.slot_bytes;
  gather_.slots = table_.slots = store->slots + first_slot_ * bytes;
  gather_.records = table_.records = store->records_seen + first_record_ * bytes;
  gather_.table = table_.table = store->tables + first_record_;
  gather_.slot_bytes = table_.slot_bytes = bytes;
  gather_.words = static_cast<std::uint32_t>(bytes / 16);
  table_.words = 0;
  gather_.quiet = table_.quiet = quiet;
  gather_.count = table_.count = 0;
  checks_ = sums_of(*store, layer);
  checks_.checks = 1;
}

void Mover::note(kvsift_status status) {
  if (status_ == KVSIFT_OK) status_ = status;
}

void Mover::launch_moves(StoreGatherArgs *args) {
  const LaunchShape shape{args->count, 1, 1, kMoveThreads, 0};
  const kvsift_status status = launch(store_->device, kKernel_store_gather, shape, on_, *args, &store_->error);
  if (status != KVSIFT_OK) store_->lost = status;
  note(status);
  args->count = 0;
}

void Mover::add(StoreGatherArgs *args, const Move &move) {
  args->moves[args->count++] = move;
  if (args->count == kMovesMost) launch_moves(args);
}

// Behind the moves of the blocks that it looks at.
void Mover::launch_checks() {
  if (gather_.count > 0) launch_moves(&gather_);
  if (table_.count > 0) launch_moves(&table_);
  note(launch_sums(store_, &checks_, on_));
}

void Mover::tell(const Move &move) { add(&table_, move); }

void Mover::fetch(const Move &move) {
  const Move &last = run_moves_[run_ == 0 ? 0 : run_ - 1];
  const bool follows = run_ > 0 && run_ < kMovesMost && move.record == last.record + 1 && move.slot == last.slot + 1;
  if (!follows) end_run();
  run_moves_[run_++] = move;
  store_->stats.bytes_read += store_->g.slot_bytes;
}

void Mover::copy_run() {
  const std::uint64_t bytes = store_->g.slot_bytes;
  const char *from = store_->records + (first_record_ + run_moves_[0].record) * bytes;
  const char *to = store_->slots + (std::uint64_t{first_slot_} + run_moves_[0].slot) * bytes;
  const CUresult result =
      store_->device.driver.to_device(reinterpret_cast<CUdeviceptr>(to), from, run_ * bytes, on_);
  note(check_driver(store_, result, "cuMemcpyHtoDAsync"));
}

void Mover::end_run() {
  if (run_ == 0) return;
  const bool by_engine = store_->run_blocks > 0 && run_ >= store_->run_blocks;
  if (by_engine) copy_run();
  for (std::uint32_t i = 0; i < run_; ++i) {
    add(by_engine ? &table_ : &gather_, run_moves_[i]);
    if (store_->sums == nullptr) continue;
    checks_.moves[checks_.count++] = run_moves_[i];
    if (checks_.count == kMovesMost) launch_checks();
  }
  ++store_->stats.reads;
  run_ = 0;
}

kvsift_status Mover::finish() {
  end_run();
  if (gather_.count > 0) launch_moves(&gather_);
  if (table_.count > 0) launch_moves(&table_);
  if (checks_.count > 0) launch_checks();
  return status_;
}

}  // namespace kvsift
