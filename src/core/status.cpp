#include "core/status.h"

#include <cmath>

namespace kvsift {
namespace {

struct Sink {
  char *out;
  unsigned used;

  void put(char c) {
    if (used + 1 < KVSIFT_ERROR_BYTES) out[used++] = c;
  }
  void put(const char *text) {
    for (; *text != '\0'; ++text) put(*text);
  }
  void put(std::uint64_t v) {
    char digits[20];
    unsigned n = 0;
    do {
      digits[n++] = static_cast<char>('0' + v % 10);
      v /= 10;
    } while (v != 0);
    while (n > 0) put(digits[--n]);
  }
  // Six significant digits are enough to recognise a value.
  void put(double v) {
    if (std::isnan(v)) return put("nan");
    if (v < 0) {
      put('-');
      v = -v;
    }
    if (std::isinf(v)) return put("infinity");
    int exponent = 0;
    if (v >= 1e6 || (v > 0 && v < 1e-4)) {
      while (v >= 10) v /= 10, ++exponent;
      while (v < 1) v *= 10, --exponent;
    }
    auto scaled = static_cast<std::uint64_t>(v * 1e6 + 0.5);
    put(scaled / 1000000);
    scaled %= 1000000;
    if (scaled != 0) {
      put('.');
      for (std::uint64_t unit = 100000; scaled != 0; unit /= 10) {
        put(static_cast<char>('0' + scaled / unit));
        scaled %= unit;
      }
    }
    if (exponent == 0) return;
    put(exponent < 0 ? "e-" : "e");
    put(static_cast<std::uint64_t>(exponent < 0 ? -exponent : exponent));
  }
};

}  // namespace

void write_sentence(char *message, const Word *words, unsigned count) {
  Sink sink{message, 0};
  for (unsigned i = 0; i < count; ++i) {
    const Word &word = words[i];
    switch (word.kind) {
      case Word::kText: sink.put(word.text); break;
      case Word::kUnsigned: sink.put(word.u); break;
      case Word::kSigned:
        if (word.i < 0) sink.put('-');
        sink.put(word.i < 0 ? 0 - static_cast<std::uint64_t>(word.i)
                            : static_cast<std::uint64_t>(word.i));
        break;
      case Word::kReal: sink.put(word.real); break;
    }
  }
  message[sink.used] = '\0';
}

}  // namespace kvsift
