// Which instruction set the kernels run on. Every kernel family is compiled once per set and chosen at run time; the
// choice is listed, can be forced, and forcing a set that this CPU lacks is an error, never a fallback.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace coinfer {

enum class Isa : std::uint8_t { baseline, avx2, avx512 };

std::string_view name(Isa isa) noexcept;

/// The instruction sets that this build holds and this CPU runs, slowest first.
std::vector<Isa> implementations();

/// The set in use: the forced one, else COINFER_CPU, else the widest. Throws std::invalid_argument on an unusable
/// COINFER_CPU.
Isa implementation();

/// Force a set by name, or "auto" to undo. Throws std::invalid_argument that lists what is allowed.
void force(std::string_view isa);

/// The name that was forced, else "auto".
std::string_view forced() noexcept;

/// Read memory with the widest set and nothing else, for benchmarks: no kernel that reads the same bytes can be faster.
float read_floor(std::span<const float> data) noexcept;

/// The same for a kernel that reads `data` and writes `out`, which lies on a 64-byte boundary, past the caches.
float read_write_floor(std::span<const float> data, std::span<float> out) noexcept;

}  // namespace coinfer
