#include "coinfer/drawing/drawing.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "coinfer/cpu.hpp"
#include "coinfer/drawing/ziggurat.hpp"

namespace coinfer {
namespace {

constexpr PhiloxKey philox_steps = {0x9E3779B97F4A7C15U, 0xBB67AE8584CAA73BU};

isa::Philox philox() {
#if defined(__x86_64__)
  if (implementation() != Isa::baseline) return isa::philox_avx2;
#endif
  return isa::philox_baseline;
}

double unit(std::uint64_t word) noexcept {
  return static_cast<double>(static_cast<std::int64_t>(word >> 11)) * 0x1.0p-53;
}

struct Draw {
  const Layer* layer;
  std::uint64_t bits;
  double x() const noexcept { return static_cast<double>(static_cast<std::int64_t>(bits)) * layer->width; }
  bool inside() const noexcept { return bits < layer->inside; }
};

Draw draw_of(std::uint64_t word) noexcept { return {&ziggurat[(word >> 3) & 0xFF], word >> 11}; }

double exponential(Words& words) noexcept {
  while (true) {
    const Draw draw = draw_of(words.next());
    const double x = draw.x();
    if (draw.inside()) return x;
    if (draw.layer == ziggurat) return ziggurat_tail - std::log1p(-unit(words.next()));
    const double above = draw.layer[-1].height - draw.layer->height;
    if (above * unit(words.next()) + draw.layer->height < std::exp(-x)) return x;
  }
}

}  // namespace

Words::Words(PhiloxKey key) : philox_(philox()) {
  for (auto& round : keys_) {
    for (std::size_t i = 0; i < 2; ++i) {
      round[i] = key[i];
      key[i] += philox_steps[i];
    }
  }
}

void Words::refill() noexcept {
  philox_(keys_, counter_ + 1, made_.data());  // NumPy counts before it draws
  counter_ += made_.size() / 4;
  at_ = 0;
}

void Arrivals::draw(std::span<std::int64_t> times_ns) noexcept {
  double now = now_ns_;
  while (!times_ns.empty()) {
    const auto ready = words_.ready();
    const std::size_t count = std::min(ready.size(), times_ns.size());
    std::size_t done = 0;
    for (; done < count; ++done) {
      const Draw draw = draw_of(ready[done]);
      if (!draw.inside()) break;
      now += draw.x() * gap_ns_;
      times_ns[done] = std::llrint(now);
    }
    words_.skip(done);
    if (done < count) {  // one in ninety
      now += exponential(words_) * gap_ns_;
      times_ns[done++] = std::llrint(now);
    }
    times_ns = times_ns.subspan(done);
  }
  now_ns_ = now;
}

void Uniforms::draw(std::span<double> values) noexcept {
  while (!values.empty()) {
    const auto ready = words_.ready();
    const std::size_t count = std::min(ready.size(), values.size());
    for (std::size_t i = 0; i < count; ++i) values[i] = unit(ready[i]);
    words_.skip(count);
    values = values.subspan(count);
  }
}

std::uint32_t Integers::next() noexcept {
  const std::uint64_t word = words_.ready().front();
  if (halved_) words_.skip(1);
  halved_ = !halved_;
  return static_cast<std::uint32_t>(halved_ ? word : word >> 32);
}

void Integers::draw(std::span<std::int32_t> values) noexcept {
  if (bound_ == 1) {
    std::fill(values.begin(), values.end(), 0);
    return;
  }
  const std::uint32_t uneven = -bound_ % bound_;  // so many of 2^32 are too many for an even share
  const auto product = [this](std::uint32_t half) { return std::uint64_t{half} * bound_; };
  const auto fits = [](std::uint64_t found, std::uint32_t least) { return static_cast<std::uint32_t>(found) >= least; };
  const auto value = [](std::uint64_t found) { return static_cast<std::int32_t>(found >> 32); };
  while (!values.empty()) {
    std::size_t done = 0;
    if (!halved_) {
      const auto ready = words_.ready();
      const std::size_t pairs = std::min(ready.size(), values.size() / 2);
      for (; done < pairs; ++done) {
        const std::uint64_t low = product(static_cast<std::uint32_t>(ready[done]));
        const std::uint64_t high = product(static_cast<std::uint32_t>(ready[done] >> 32));
        if (!fits(low, uneven) || !fits(high, uneven)) break;
        values[2 * done] = value(low);
        values[2 * done + 1] = value(high);
      }
      words_.skip(done);
    }
    values = values.subspan(2 * done);
    if (done == 0) {
      std::uint64_t found = product(next());
      while (!fits(found, uneven)) found = product(next());
      values.front() = value(found);
      values = values.subspan(1);
    }
  }
}

void pick(std::span<const double> ends, std::span<const double> numbers, std::span<std::int32_t> parts) {
  constexpr int steps_on_foot = 8;
  const auto search = [&](std::size_t from, double number) {
    return static_cast<std::size_t>(std::upper_bound(ends.begin() + from, ends.end(), number) - ends.begin());
  };
  if (numbers.size() < ends.size()) {  // the table would cost more than it saves
    for (std::size_t i = 0; i < numbers.size(); ++i) parts[i] = static_cast<std::int32_t>(search(0, numbers[i]));
    return;
  }
  std::vector<std::int32_t> first(std::bit_ceil(2 * ends.size() + 1));
  const auto steps = static_cast<double>(first.size());
  for (std::size_t step = 0, part = 0; step < first.size(); ++step) {
    while (ends[part] <= static_cast<double>(step) / steps) ++part;
    first[step] = static_cast<std::int32_t>(part);
  }
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double number = numbers[i];
    auto part = static_cast<std::size_t>(first[static_cast<std::size_t>(number * steps)]);
    part += ends[part] <= number ? 1 : 0;
    for (int walked = 1; ends[part] <= number; ++walked)
      part = walked < steps_on_foot ? part + 1 : search(part, number);
    parts[i] = static_cast<std::int32_t>(part);
  }
}

}  // namespace coinfer
