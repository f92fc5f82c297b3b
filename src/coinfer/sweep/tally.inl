// Included by one translation unit per instruction set.

namespace {

inline void tally_run(const coinfer::isa::Run& run) noexcept {
  constexpr std::size_t words = coinfer::isa::set_words;
  const std::size_t stages = run.cuts + 1;
  for (std::size_t vector = 0; vector < run.vectors; ++vector) {
    std::uint64_t left[words];
    for (std::size_t w = 0; w < words; ++w) left[w] = run.rows[w];
    for (std::size_t stage = 0; stage < stages; ++stage) {
      std::uint64_t here[words];
      if (stage < run.cuts) {
        const std::uint64_t* reached = run.reached[stage] + words * run.at[vector * run.cuts + stage];
        for (std::size_t w = 0; w < words; ++w) {
          here[w] = left[w] & reached[w];
          left[w] &= ~reached[w];
        }
      } else {
        for (std::size_t w = 0; w < words; ++w) here[w] = left[w];
      }
      int count = 0;
      for (std::size_t w = 0; w < words; ++w) count += __builtin_popcountll(here[w]);
      run.settled[stage * run.vectors + vector] += count;
      for (std::size_t q = 0; q < run.quantities; ++q) {
        const std::uint64_t* flag = run.flags[q * stages + stage];
        int sum = 0;
        for (std::size_t w = 0; w < words; ++w) sum += __builtin_popcountll(here[w] & flag[w]);
        run.sums[q * run.vectors + vector] += sum;
      }
    }
  }
}

}  // namespace
