#include "protocol/json_direct.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace msserving {

size_t FindInput(const MethodSignature& signature, std::string_view key, size_t expected) {
  const std::vector<std::string>& inputs = signature.inputs;
  if (expected < inputs.size() && key == inputs[expected]) {
    return expected;
  }
  return static_cast<size_t>(std::find(inputs.begin(), inputs.end(), key) - inputs.begin());
}

bool JsonDirectReader::Read() {
  while (p_ < end_ && IsJsonSpace(static_cast<char>(end_[-1]))) {
    --end_;
  }
  std::string_view key;
  if (p_ == end_ || end_[-1] != '}' || !Take('{') || !ReadKey(&key) || key != "instances") {
    return false;
  }
  if (Take('[')) {
    do {
      if (!ReadInstance()) {
        return false;
      }
    } while (Take(','));
    if (!Take(']')) {
      return false;
    }
  } else if (!ReadInstance()) {
    return false;
  }
  return Take('}') && p_ == end_;
}

bool JsonDirectReader::ReadInstance() {
  const size_t inputs = signature_.inputs.size();
  const size_t first = instances_.tensors.size();
  if (first + inputs > max_tensors_ || !Take('{')) {
    return false;
  }
  instances_.tensors.resize(first + inputs);
  size_t found = 0;
  size_t expected = 0;
  do {
    std::string_view key;
    if (!ReadKey(&key)) {
      return false;
    }
    const size_t index = FindInput(signature_, key, expected);
    if (index == inputs) {
      return false;
    }
    TensorView* const tensor = &instances_.tensors[first + index];
    if (tensor->dtype != DataType::kUnknown || !values_.ReadPlain(&p_, tensor)) {
      return false;
    }
    ++found;
    expected = index + 1;
  } while (Take(','));
  if (found < inputs || !Take('}') || p_ == end_) {
    return false;
  }
  ++instances_.count;
  return true;
}

// A key without escapes, and the colon and spaces behind it.
bool JsonDirectReader::ReadKey(std::string_view* key) {
  if (!Take('"')) {
    return false;
  }
  const uint8_t* const begin = p_;
  for (; *p_ != '"'; ++p_) {
    if (*p_ < ' ' || *p_ == '\\' || p_ == end_ - 1) {
      return false;
    }
  }
  *key = {reinterpret_cast<const char*>(begin), static_cast<size_t>(p_ - begin)};
  ++p_;
  if (!Take(':')) {
    return false;
  }
  while (IsJsonSpace(static_cast<char>(*p_))) {
    ++p_;
  }
  return true;
}

// The next character that is no space, if it is this one.
bool JsonDirectReader::Take(uint8_t c) {
  while (IsJsonSpace(static_cast<char>(*p_))) {
    ++p_;
  }
  const bool is = *p_ == c;
  p_ += is;
  return is;
}

}  // namespace msserving
