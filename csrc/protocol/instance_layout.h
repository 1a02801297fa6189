// Parsing an instance by the one before it: what makes a request of many instances cheap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "tensor/tensor_view.h"

namespace msserving {

// How an instance that has been parsed lies in its message. Clients encode the instances of a request alike, mostly:
// then the next one has other numbers, and all of its other bytes are the same. Nothing looks into the numbers, so such
// an instance parses as the one before, and need not be parsed.
class InstanceLayout {
 public:
  // `row`: what became of `instance`, every input given.
  void Learn(std::span<const uint8_t> instance, std::span<const TensorView> row) {
    size_ = 0;
    if (row.size() > kMaxInputs) {
      return;
    }
    row_ = row.data();
    inputs_ = row.size();
    for (size_t i = 0; i < inputs_; ++i) {
      if (IsText(row[i].dtype) || row[i].bytes == 0) {
        return;  // a text is looked into; no bytes may be anywhere
      }
      const Hole hole{static_cast<size_t>(row[i].data - instance.data()), row[i].bytes};
      size_t at = i;
      for (; at > 0 && holes_[at - 1].begin > hole.begin; --at) {
        holes_[at] = holes_[at - 1];
      }
      holes_[at] = hole;
    }
    bytes_ = instance.data();
    size_ = instance.size();
  }

  // True if `instance` is like the one that was learnt but for its numbers; then `row` is filled.
  bool Fill(std::span<const uint8_t> instance, TensorView* row) const {
    if (instance.size() != size_ || size_ == 0) {
      return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < inputs_; ++i) {
      if (!Same(instance, at, holes_[i].begin)) {
        return false;
      }
      at = holes_[i].begin + holes_[i].size;
    }
    if (!Same(instance, at, size_)) {
      return false;
    }
    for (size_t i = 0; i < inputs_; ++i) {
      row[i] = row_[i];
      row[i].data = instance.data() + (row_[i].data - bytes_);
    }
    return true;
  }

 private:
  static constexpr size_t kMaxInputs = 16;
  struct Hole {
    size_t begin;
    size_t size;
  };

  bool Same(std::span<const uint8_t> instance, size_t begin, size_t end) const {
    return std::memcmp(instance.data() + begin, bytes_ + begin, end - begin) == 0;
  }

  const uint8_t* bytes_ = nullptr;
  size_t size_ = 0;  // 0: nothing learnt
  const TensorView* row_ = nullptr;
  size_t inputs_ = 0;
  Hole holes_[kMaxInputs];  // the numbers of the inputs, as they lie in the instance
};

}  // namespace msserving
