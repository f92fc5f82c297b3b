// Included by one translation unit per instruction set. Walks the stages backwards over a run of rows that stays in the
// first cache level: a later verdict is overwritten by an earlier stage that is sure enough. No branch depends on data.

namespace {

inline void settle_rows(const float* scores, std::size_t rows, std::size_t stages, const float* thresholds,
                        std::uint8_t* settled) noexcept {
  constexpr std::size_t run = 2048;
  for (std::size_t first = 0; first < rows; first += run) {
    const std::size_t count = rows - first < run ? rows - first : run;
    std::uint8_t* out = settled + first;
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(stages - 1);
    for (std::size_t stage = stages - 1; stage-- > 0;) {
      const float* score = scores + stage * rows + first;
      const float threshold = thresholds[stage];
      const auto here = static_cast<std::uint8_t>(stage);
      for (std::size_t i = 0; i < count; ++i) out[i] = score[i] >= threshold ? here : out[i];
    }
  }
}

}  // namespace
