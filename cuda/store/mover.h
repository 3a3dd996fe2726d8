// Moves of one call, gathered until they are worth a launch: single blocks by a kernel that reads pinned memory, long runs
// by the copy engine. With checksums a kernel behind them looks at what has come.
#pragma once

#include "cuda/store/store.h"

namespace kvsift {

class Mover {
 public:
  // `quiet`: the table is not told where the blocks are, but of what had their slots.
  Mover(CudaStore *store, std::uint32_t layer, CUstream on, bool quiet = false);

  // From slow memory to its slot.
  void fetch(const Move &move);
  // Only the table is told.
  void tell(const Move &move);
  // What is left to be launched; the first failure of all.
  kvsift_status finish();

 private:
  void end_run();
  void copy_run();
  void add(StoreGatherArgs *args, const Move &move);
  void launch_moves(StoreGatherArgs *args);
  void launch_checks();
  void note(kvsift_status status);

  CudaStore *store_;
  std::uint64_t first_record_;
  std::uint32_t first_slot_;
  CUstream on_;
  std::uint32_t run_ = 0;  // moves whose records and slots are neighbours
  Move run_moves_[kMovesMost];
  StoreGatherArgs gather_, table_;
  StoreSumArgs checks_;
  kvsift_status status_ = KVSIFT_OK;
};

// What the kernel of checksums is told of a layer, but for the blocks.
StoreSumArgs sums_of(const CudaStore &store, std::uint32_t layer);
kvsift_status launch_sums(CudaStore *store, StoreSumArgs *args, CUstream on);

}  // namespace kvsift
