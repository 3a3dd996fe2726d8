// What the checks of symbols and allocations must catch: a library that allocates, throws and prints.
#include <cstdio>
#include <stdexcept>
#include <vector>

extern "C" unsigned kvsift_planted(unsigned count) {
  std::vector<unsigned> numbers(count, 1u);
  if (numbers.size() != count) throw std::runtime_error("planted");
  std::printf("planted: %u numbers on the heap\n", count);
  return static_cast<unsigned>(numbers.size());
}
