// What models say: the tables that everything else reads. Spans only; whoever calls the engine owns the memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coinfer {

using Label = std::int32_t;
inline constexpr Label no_answer = -1;

/// In which form a model answers. Real services return all of these.
enum class Form : std::uint8_t { none, label, label_confidence, probs, logits };

/// One model over n rows (n = 1 when live). `vector` holds rows x classes with unit stride along a row; `relabel`, if
/// set, maps the model's own class indices, in increasing order, to those of the label set that all models share.
struct Outputs {
  Form form = Form::none;
  std::size_t rows = 0;
  std::size_t classes = 0;
  const float* vector = nullptr;
  std::ptrdiff_t row_stride = 0;
  const Label* label = nullptr;
  const float* confidence = nullptr;
  const Label* relabel = nullptr;

  /// Rows [first, first + count) of the same model.
  Outputs slice(std::size_t first, std::size_t count) const noexcept {
    Outputs part = *this;
    part.rows = count;
    if (vector != nullptr) part.vector = vector + static_cast<std::ptrdiff_t>(first) * row_stride;
    if (label != nullptr) part.label = label + first;
    if (confidence != nullptr) part.confidence = confidence + first;
    return part;
  }
};

}  // namespace coinfer
