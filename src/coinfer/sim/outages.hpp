// What fails, and what a router does about it: the rules of python/coinfer/live/guard.py in simulated time, so that a
// failure can be rehearsed before it happens.
//
// A place (a station, or a direction of a link) that is down refuses who comes, and a station loses whom it holds; a
// silent one says nothing, and whoever asked waits until the deadline, or for `patience_ns`. What is slow takes a
// factor longer, if it starts in that time. Answers wait at a link that is down until it is up again.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace coinfer {

/// From `from` until before `to`, a place is down (factor 0) or slow. `whole`: with the node that it stands at.
struct Window {
  std::int64_t from = 0;
  std::int64_t to = 0;
  double factor = 0.0;
  bool silent = false;
  bool whole = false;

  bool down() const noexcept { return factor == 0.0; }
};

/// Windows of one place, ascending and apart.
using Windows = std::vector<Window>;

inline const Window* window_at(const Windows& windows, std::int64_t at) noexcept {
  const auto after = std::upper_bound(windows.begin(), windows.end(), at,
                                      [](std::int64_t time, const Window& window) { return time < window.from; });
  if (after == windows.begin() || std::prev(after)->to <= at) return nullptr;
  return &*std::prev(after);
}

/// When a place that is down at a time is up again; that time itself where it is not down.
inline std::int64_t up_again(const Windows& windows, std::int64_t at) noexcept {
  for (const Window* window = window_at(windows, at); window != nullptr && window->down();
       window = window_at(windows, at)) {
    at = window->to;
  }
  return at;
}

inline std::int64_t slowed(const Windows& windows, std::int64_t at, std::int64_t ns) noexcept {
  const Window* window = window_at(windows, at);
  return window == nullptr || window->down() ? ns : std::llrint(window->factor * static_cast<double>(ns));
}

/// The same defaults as in live runs.
inline constexpr std::int64_t patience_ns = 10'000'000'000;
inline constexpr std::int64_t backoff_ns = 20'000'000;
inline constexpr std::uint8_t attempts_max = 3;

/// Closed, open, or half open with one probe.
class Breaker {
 public:
  bool allows(std::int64_t now) const noexcept { return count_ < failures || (!probing_ && now >= until_); }
  void sent() noexcept { probing_ = probing_ || count_ >= failures; }
  void succeeded() noexcept { *this = {}; }
  void abandoned() noexcept { probing_ = false; }

  void failed(std::int64_t now) noexcept {
    if (count_ >= failures && !probing_) return;  // sent before it opened: news that is known
    if (++count_ < failures) return;
    wait_ = wait_ == 0 ? open_ns : std::min(2 * wait_, open_ns_max);
    until_ = now + wait_;
    probing_ = false;
  }

 private:
  static constexpr std::uint32_t failures = 5;
  static constexpr std::int64_t open_ns = 250'000'000;
  static constexpr std::int64_t open_ns_max = 1'000'000'000;

  std::uint32_t count_ = 0;
  bool probing_ = false;
  std::int64_t wait_ = 0;
  std::int64_t until_ = std::numeric_limits<std::int64_t>::min();
};

/// Retries in flight, at most a share of all requests in flight.
class Budget {
 public:
  bool take(std::uint64_t active) noexcept {
    if (static_cast<double>(used_) >= std::max(3.0, 0.2 * static_cast<double>(active))) return false;
    ++used_;
    return true;
  }
  void give() noexcept { --used_; }

 private:
  std::uint64_t used_ = 0;
};

}  // namespace coinfer
