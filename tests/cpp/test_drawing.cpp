#include "coinfer/drawing/drawing.hpp"

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "check.hpp"
#include "coinfer/cpu.hpp"

using namespace coinfer;

namespace {

constexpr PhiloxKey key = {0x0123456789ABCDEFU, 0xFEDCBA9876543210U};

template <class T, class Stream>
std::vector<T> drawn(Stream stream, std::vector<std::size_t> parts) {
  std::vector<T> values(std::accumulate(parts.begin(), parts.end(), std::size_t{0}));
  std::span<T> left(values);
  for (const std::size_t part : parts) {
    stream.draw(left.first(part));
    left = left.subspan(part);
  }
  return values;
}

}  // namespace

TEST("every instruction set, and draws in any parts, give the numbers of numpy 2.4") {
  for (const Isa isa : implementations()) {
    force(name(isa));
    // Generator(Philox(key=0xFEDCBA98765432100123456789ABCDEF)).standard_exponential(20_000)
    const auto times = drawn<std::int64_t>(Arrivals(key, 1e6), {20'000});
    CHECK_EQ(times.back(), 19'862'612'518);
    CHECK(drawn<std::int64_t>(Arrivals(key, 1e6), {1, 0, 255, 257, 19'487}) == times);
    // Generator(Philox(key=...)).integers(bound, size=20_000, dtype=np.int32).sum(): hardly a word is too many, a
    // quarter
    const std::pair<std::uint32_t, std::int64_t> sums[] = {{10, 89'771}, {(1U << 30) + 1, 10'664'477'885'427}};
    for (const auto& [bound, sum] : sums) {
      const auto values = drawn<std::int32_t>(Integers(key, bound), {20'000});
      CHECK_EQ(std::accumulate(values.begin(), values.end(), std::int64_t{0}), sum);
      CHECK(drawn<std::int32_t>(Integers(key, bound), {1, 0, 255, 257, 19'487}) == values);
    }
  }
  force("auto");
}

TEST("a bound of one draws nothing") {
  const auto values = drawn<std::int32_t>(Integers(key, 1), {100});
  CHECK(values == std::vector<std::int32_t>(100, 0));
}

TEST("a number falls into the first part that ends above it, with a table and without") {
  std::vector<double> ends(40, 0.25);  // all but three are empty
  ends.push_back(0.5);
  ends.push_back(1.0);
  ends.push_back(1.0);
  std::vector<double> numbers = {0.0, 0.1, 0.25, 0.3, 0.5, 0x1.fffffffffffffp-1};
  const std::vector<std::int32_t> expected = {0, 0, 40, 40, 41, 41};
  for (const std::size_t more : {0U, 100U}) {
    numbers.resize(expected.size() + more);
    std::vector<std::int32_t> parts(numbers.size());
    pick(ends, numbers, parts);
    CHECK(std::vector(parts.begin(), parts.begin() + 6) == expected);
  }
}

int main() { return check::run_all(); }
