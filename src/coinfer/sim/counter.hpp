// A counter: a station that works through a round by itself, with a list of when its instances are done.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coinfer/sim/waits.hpp"

namespace coinfer {

/// Times in order. Who begins last is mostly done last, so the place of a new one is looked for from the end.
class Ends {
 public:
  bool empty() const noexcept { return times_.empty(); }
  std::int64_t first() const noexcept { return times_[0]; }
  void pop() noexcept { times_.pop(); }
  void push(std::int64_t time) {
    std::size_t at = times_.size();
    times_.push(time);
    for (; at > 0 && times_[at - 1] > time; --at) times_[at] = times_[at - 1];
    times_[at] = time;
  }

 private:
  Ring<std::int64_t> times_;
};

/// A request in line, by slot and step.
struct Waiter {
  std::int64_t since;
  std::uint32_t slot;
  std::uint32_t step;
};

struct Counter : Waits<Waiter> {
  Ends ends;  // of those who are served
  std::int64_t woken_at = -1;

  /// How it stood, from `at` on, in halves of nanoseconds: so many waited, and unless somebody came, an instance was
  /// free at `free`.
  struct Mark {
    std::uint64_t at;
    std::int64_t free;
    std::size_t waiting;
  };
  Ring<Mark> marks;  // later than was last looked back to; and then:
  std::int64_t free_then = INT64_MIN;
  std::size_t waiting_then = 0;

  void look_back(std::uint64_t at) noexcept {
    for (; !marks.empty() && marks.front().at <= at; marks.pop()) {
      free_then = marks.front().free;
      waiting_then = marks.front().waiting;
    }
  }
};

}  // namespace coinfer
