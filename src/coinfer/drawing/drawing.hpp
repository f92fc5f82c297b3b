// What a generated trace is drawn from: NumPy's numbers for a seed, in less than a third of the time that NumPy takes.
//
// The numbers are those of numpy.random.Generator(numpy.random.Philox(...)), bit for bit: the stream of Philox-4x64-10
// (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11), standard exponentials by its ziggurat
// (Marsaglia and Tsang, "The ziggurat method for generating random variables", 2000), and bounded 32-bit integers
// (Lemire, "Fast random integer generation in an interval", 2019). NumPy asks for one word at a time, through a
// pointer, and adds up in a pass of its own; here words are made many at a time, so that multiplications of several
// counters overlap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "coinfer/drawing/philox.hpp"

namespace coinfer {

using PhiloxKey = std::array<std::uint64_t, 2>;

/// The words of numpy.random.Philox with a key, from the first on.
class Words {
 public:
  explicit Words(PhiloxKey key);

  /// What has been made and not been used yet: one word at least.
  std::span<const std::uint64_t> ready() noexcept {
    if (at_ == made_.size()) refill();
    return std::span(made_).subspan(at_);
  }

  /// Leave so many of what is ready behind.
  void skip(std::size_t words) noexcept { at_ += words; }

  std::uint64_t next() noexcept {
    const std::uint64_t word = ready().front();
    skip(1);
    return word;
  }

 private:
  void refill() noexcept;

  isa::Philox philox_;
  std::uint64_t keys_[isa::philox_rounds][2];
  std::uint64_t counter_ = 0;
  std::array<std::uint64_t, isa::philox_words> made_;
  std::size_t at_ = isa::philox_words;
};

/// Arrivals of a Poisson process: standard_exponential times the mean gap, added up in double, rounded to even.
class Arrivals {
 public:
  Arrivals(PhiloxKey key, double gap_ns) : words_(key), gap_ns_(gap_ns) {}

  void draw(std::span<std::int64_t> times_ns) noexcept;

  /// The last arrival, before it was rounded. Where it is 2^63 or more, times that were drawn are not to be used.
  double now_ns() const noexcept { return now_ns_; }

 private:
  Words words_;
  double gap_ns_;
  double now_ns_ = 0.0;
};

/// random(): 53 bits, in [0, 1).
class Uniforms {
 public:
  explicit Uniforms(PhiloxKey key) : words_(key) {}

  void draw(std::span<double> values) noexcept;

 private:
  Words words_;
};

/// integers(bound, dtype=int32), 1 <= bound <= 2^31. With a bound of 1 nothing is drawn, as NumPy has it.
class Integers {
 public:
  Integers(PhiloxKey key, std::uint32_t bound) : words_(key), bound_(bound) {}

  void draw(std::span<std::int32_t> values) noexcept;

 private:
  std::uint32_t next() noexcept;

  Words words_;
  std::uint32_t bound_;
  bool halved_ = false;  // the low half of the next word has been used
};

/// Into which part of [0, 1) each number falls: the first whose end is above it. `ends` ascend to 1. A table over equal
/// steps says where to look first, and few numbers lie more than a part from there; a power of two of steps, so that
/// the step of a number is exact.
void pick(std::span<const double> ends, std::span<const double> numbers, std::span<std::int32_t> parts);

}  // namespace coinfer
