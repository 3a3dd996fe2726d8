// What is remembered of the accesses to each byte of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <unordered_map>

namespace emulator {
namespace races {

// A stretch of a thread's run in which nothing orders it, numbered through the whole program; 0: none.
using Stretch = std::uint32_t;

struct Access {
  Stretch stretch;
  std::uint32_t where;  // in the library's code
};
constexpr std::uint32_t kAtomic = 1u << 31, kPending = 1u << 30, kManyLanes = 1u << 29, kPlace = kManyLanes - 1;

struct Cell {
  Access write, reads[2];  // the last one, and the last by another warp or block than that
};

class Cells {
 public:
  // use(address, cell) for all cells of the bytes.
  template <class Use>
  void each(std::uintptr_t at, std::size_t bytes, Use use) {
    const std::uintptr_t end = at + bytes;
    while (at < end) {
      Page *page = page_of(at);
      if (page->bytes == nullptr && at % 4 == 0 && end - at >= 4) {
        use(at, &page->words[at % kPage / 4]);
        at += 4;
        continue;
      }
      if (page->bytes == nullptr) split(page);
      use(at, &page->bytes[at % kPage]);
      ++at;
    }
  }

  void forget(std::uintptr_t begin, std::size_t bytes) {
    for (std::uintptr_t number = begin / kPage; number <= (begin + bytes - 1) / kPage; ++number) {
      const auto found = pages_.find(number);
      if (found == pages_.end()) continue;
      std::free(found->second->bytes);
      std::free(found->second);
      pages_.erase(found);
    }
    last_ = nullptr;
  }

 private:
  static constexpr std::size_t kPage = 4096;

  // A cell for each word, or for each byte once less than a word is touched.
  struct Page {
    Cell words[kPage / 4], *bytes;
  };

  Page *page_of(std::uintptr_t at) {
    const std::uintptr_t number = at / kPage;
    if (last_ != nullptr && number == last_number_) return last_;
    Page *&page = pages_[number];
    if (page == nullptr) page = static_cast<Page *>(std::calloc(1, sizeof(Page)));
    if (page == nullptr) std::abort();
    last_number_ = number;
    return last_ = page;
  }

  static void split(Page *page) {
    page->bytes = static_cast<Cell *>(std::malloc(kPage * sizeof(Cell)));
    if (page->bytes == nullptr) std::abort();
    for (std::size_t i = 0; i < kPage; ++i) page->bytes[i] = page->words[i / 4];
  }

  std::unordered_map<std::uintptr_t, Page *> pages_;
  std::uintptr_t last_number_ = 0;
  Page *last_ = nullptr;
};


}  // namespace races
}  // namespace emulator
