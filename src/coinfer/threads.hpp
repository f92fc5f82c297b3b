// Split rows over threads. No pool: a pool would not survive fork, and a spawn costs less than the work it is asked
// for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace coinfer {

/// Call work(first, last) on `threads` ranges of [0, rows), each a multiple of `grain`. The first exception is rethrown
/// here.
template <class Work>
void split(std::size_t rows, unsigned threads, std::size_t grain, const Work& work) {
  const std::size_t grains = (rows + grain - 1) / grain;
  const std::size_t parts = std::min<std::size_t>(std::max(threads, 1U), std::max<std::size_t>(grains, 1));
  if (parts <= 1) {
    work(std::size_t{0}, rows);
    return;
  }
  std::vector<std::exception_ptr> errors(parts);
  {
    std::vector<std::jthread> running;
    for (std::size_t part = 0; part < parts; ++part) {
      running.emplace_back([&, part] {
        try {
          work(std::min(rows, grains * part / parts * grain), std::min(rows, grains * (part + 1) / parts * grain));
        } catch (...) {
          errors[part] = std::current_exception();
        }
      });
    }
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace coinfer
