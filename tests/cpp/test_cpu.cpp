#include "coinfer/cpu.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"

using coinfer::Isa;

TEST("the baseline is always there, and first") {
  const std::vector<Isa> found = coinfer::implementations();
  CHECK(!found.empty());
  CHECK(found.front() == Isa::baseline);
}

TEST("every implementation that is listed can be forced by name") {
  for (const Isa isa : coinfer::implementations()) {
    coinfer::force(coinfer::name(isa));
    CHECK_EQ(coinfer::name(coinfer::implementation()), coinfer::name(isa));
  }
  coinfer::force("auto");
}

TEST("an unknown implementation is refused, the message lists the known ones, and nothing changes") {
  const Isa before = coinfer::implementation();
  CHECK_THROWS(coinfer::force("avx1024"), std::invalid_argument);
  try {
    coinfer::force("avx1024");
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()).find("baseline") != std::string::npos);
  }
  CHECK(coinfer::implementation() == before);
}

int main() { return check::run_all(); }
