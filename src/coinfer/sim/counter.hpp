// A counter where requests wait, one instance each, within a priority first come, first served; with a list of when
// instances are done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "coinfer/sim/agenda.hpp"
#include "coinfer/sim/timetable.hpp"

namespace coinfer {

/// Times in order. Who begins last is mostly done last, so the place of a new one is looked for from the end.
class Ends {
 public:
  bool empty() const noexcept { return times_.empty(); }
  std::size_t size() const noexcept { return times_.size(); }
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

struct Counter {
  Ends ends;                // of those who are served
  std::size_t waiting = 0;  // in lines
  std::size_t waiting_max = 0;
  std::vector<std::pair<std::int32_t, Ring<Message>>> lines;  // by priority level, ascending; since `time`
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

  void line_up(std::int32_t level, const Message& who) {
    auto found = lines.begin();
    while (found != lines.end() && found->first < level) ++found;
    if (found == lines.end() || found->first != level) found = lines.insert(found, {level, {}});
    found->second.push(who);
    ++waiting;
  }

  /// Whose turn it is; somebody waits.
  Message call() noexcept {
    auto first = lines.begin();
    while (first->second.empty()) ++first;
    const Message who = first->second.front();
    first->second.pop();
    --waiting;
    return who;
  }
};

}  // namespace coinfer
