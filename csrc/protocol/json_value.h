// One input's value in a JSON request, read into a tensor. Private to the JSON request parser's files: includes
// simdjson.h by way of json_walk.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "protocol/json_array.h"
#include "protocol/json_number.h"
#include "protocol/json_walk.h"
#include "tensor/tensor_view.h"

namespace msserving {

// Owns the tensors' memory. All bool functions: true on success; if false, either the text is no JSON
// (walker->why()), or refusal() says what was expected.
class JsonValueReader {
 public:
  struct Refusal {
    std::string position;  // inside the value, e.g. "[0][2]"
    std::string what;      // empty if nothing was refused
  };

  explicit JsonValueReader(JsonWalker* walker) : walker_(*walker) {}

  // Forgets the tensors of the last document and makes room for this one's.
  void Begin(std::span<const uint8_t> text);
  // Fills an empty TensorView. Text without escapes is left where it is, in the document.
  bool Read(simdjson::ondemand::value value, TensorView* tensor);
  // A number, true, false or an array of them at *text, without the walker; moves *text behind it. False if it is
  // anything else or has a defect, which is then for Read() to tell. The document ends in a closing bracket.
  bool ReadPlain(const uint8_t** text, TensorView* tensor);

  const Refusal& refusal() const { return refusal_; }
  // A value as an error message shows it: its first characters.
  std::string Excerpt(const uint8_t* value) const;

  size_t capacity() const { return capacity_; }
  void Free();

 private:
  bool ReadBool(simdjson::ondemand::value value, TensorView* tensor);
  bool ReadNumber(simdjson::ondemand::value value, TensorView* tensor);
  bool StoreNumber(const ScannedNumber& number, TensorView* tensor);
  bool ReadArrayValue(simdjson::ondemand::value value, TensorView* tensor);
  bool ReadTextArray(simdjson::ondemand::value value, TensorView* tensor);
  bool ReadText(simdjson::ondemand::value value, TensorView* tensor);
  bool ReadB64(simdjson::ondemand::value value, bool text_only, TensorView* tensor);
  bool ReadB64Keys(simdjson::ondemand::object object, std::string_view* b64, TensorView* tensor);
  bool ReadShape(simdjson::ondemand::value value, TensorView* tensor);
  bool DecodeB64(std::string_view text, TensorView* tensor);

  bool Fails(simdjson::error_code code) { return walker_.Fails(code); }
  bool Refuse(std::string what, std::string position = {});
  bool RefuseArray(const ArrayResult& result, DataType type);
  uint8_t* Align();
  void Finish(uint8_t* begin, uint8_t* end, DataType type, TensorView* tensor);
  void FinishArray(uint8_t* begin, const ArrayStart& start, const ArrayResult& result, TensorView* tensor);

  JsonWalker& walker_;
  // Twice the document's size always suffices: the text of a tensor, with its key and a comma, has at least half as
  // many characters as the tensor has bytes after rounding up to 8.
  std::unique_ptr<uint8_t[]> memory_;
  size_t capacity_ = 0;
  uint8_t* next_ = nullptr;
  const uint8_t* text_end_ = nullptr;
  Refusal refusal_;
};

}  // namespace msserving
