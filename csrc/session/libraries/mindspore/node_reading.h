// What a node of MindSpore's kernel graph says of itself: attributes, constant operands, types and shapes.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "include/backend/common/kernel_graph/anf_runtime_algorithm.h"
#include "include/utils/anfalgo.h"

namespace msserving::mindspore_session {

using Longs = std::vector<int64_t>;

// An attribute of a node, if there is one of this type.
template <typename T>
std::optional<T> Attribute(const mindspore::CNodePtr& node, const char* name) {
  const auto value = mindspore::common::AnfAlgo::GetCNodePrimitive(node)->GetAttr(name);
  if (value == nullptr) return std::nullopt;
  try {
    return mindspore::GetValue<T>(value);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

// An operand that is a constant number, if it is one of this type.
template <typename Immediate>
auto Number(const mindspore::CNodePtr& node, size_t index)
    -> std::optional<decltype(std::declval<Immediate>().value())> {
  if (index >= mindspore::common::AnfAlgo::GetInputTensorNum(node)) return std::nullopt;
  const auto operand =
      mindspore::common::AnfAlgo::GetPrevNodeOutput(node, index, false).first->cast<mindspore::ValueNodePtr>();
  const auto number = operand == nullptr ? nullptr : operand->value()->cast<std::shared_ptr<Immediate>>();
  if (number == nullptr) return std::nullopt;
  return number->value();
}

inline bool IsFloat32(const mindspore::AnfNodePtr& node, size_t output) {
  return mindspore::AnfAlgo::GetOrCreateOutputKernelTensor(node, output)->dtype_id() == mindspore::kNumberTypeFloat32;
}

inline Longs ShapeOf(const mindspore::AnfNodePtr& node, size_t output) {
  return mindspore::AnfAlgo::GetOrCreateOutputKernelTensor(node, output)->GetShapeVector();
}

inline Longs OperandShape(const mindspore::CNodePtr& node, size_t index) {
  const auto previous = mindspore::common::AnfAlgo::GetPrevNodeOutput(node, index, false);
  return ShapeOf(previous.first, previous.second);
}

inline bool OperandIsFloat32(const mindspore::CNodePtr& node, size_t index) {
  const auto previous = mindspore::common::AnfAlgo::GetPrevNodeOutput(node, index, false);
  return IsFloat32(previous.first, previous.second);
}

}  // namespace msserving::mindspore_session
