#include "coinfer/cpu.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace coinfer {
namespace {

constexpr int automatic = -1;
std::atomic<int> choice{automatic};

Isa parse(std::string_view wanted, const std::string& where = "") {
  std::string known;
  for (const Isa isa : implementations()) {
    if (name(isa) == wanted) return isa;
    known += known.empty() ? "" : ", ";
    known += name(isa);
  }
  throw std::invalid_argument(where + "this CPU or build has no implementation '" + std::string(wanted) +
                              "'; it has: " + known);
}

Isa from_environment() {
  const char* wanted = std::getenv("COINFER_CPU");
  return wanted != nullptr && *wanted != '\0' ? parse(wanted, "COINFER_CPU: ") : implementations().back();
}

}  // namespace

std::string_view name(Isa isa) noexcept {
  switch (isa) {
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::baseline: break;
  }
  return "baseline";
}

std::vector<Isa> implementations() {
  std::vector<Isa> found{Isa::baseline};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    found.push_back(Isa::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      found.push_back(Isa::avx512);
    }
  }
#endif
  return found;
}

Isa implementation() {
  const int now = choice.load(std::memory_order_relaxed);
  if (now != automatic) return static_cast<Isa>(now);
  static const Isa found = from_environment();
  return found;
}

void force(std::string_view isa) {
  choice.store(isa == "auto" ? automatic : static_cast<int>(parse(isa)), std::memory_order_relaxed);
}

std::string_view forced() noexcept {
  const int now = choice.load(std::memory_order_relaxed);
  return now == automatic ? "auto" : name(static_cast<Isa>(now));
}

}  // namespace coinfer
