#include "protocol/json_request.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/json_direct.h"
#include "protocol/json_value.h"
#include "protocol/json_walk.h"

namespace msserving {
namespace {

namespace ondemand = simdjson::ondemand;

constexpr std::string_view kPrefix = "Parser request failed, ";

}  // namespace

struct JsonRequestParser::Impl {
  Status Parse(std::span<const uint8_t> body, const MethodSignature& signature, RequestInstances* instances);
  Status Validate(std::span<const uint8_t> body);
  void Trim(size_t bytes);

 private:
  // All bool functions: true on success; if false, walker_.why(), values_.refusal() or refusal_ says why.
  bool ReadDocument(std::span<const uint8_t> body);
  bool ReadInstances(ondemand::value value);
  bool ReadInstance(ondemand::value value);
  bool ReadInputs(ondemand::object object, size_t first, size_t* found);
  bool CheckAllFound(size_t first);
  bool SkipIgnored(ondemand::value value, int depth);

  bool Refuse(std::string_view what);
  std::string Place() const;

  JsonWalker walker_;
  JsonValueReader values_{&walker_};
  const MethodSignature* signature_ = nullptr;
  RequestInstances* instances_ = nullptr;

  // Where the walk is, for messages.
  bool in_list_ = false;
  bool in_instance_ = false;
  std::string_view input_;
  std::string refusal_;
};

JsonRequestParser::JsonRequestParser() : impl_(std::make_unique<Impl>()) {}
JsonRequestParser::~JsonRequestParser() = default;

Status JsonRequestParser::Parse(std::span<const uint8_t> body, const MethodSignature& signature,
                                RequestInstances* instances) {
  return impl_->Parse(body, signature, instances);
}

Status JsonRequestParser::Validate(std::span<const uint8_t> body) { return impl_->Validate(body); }
void JsonRequestParser::Trim(size_t bytes) { impl_->Trim(bytes); }

Status JsonRequestParser::Impl::Parse(std::span<const uint8_t> body, const MethodSignature& signature,
                                      RequestInstances* instances) {
  instances->Clear();
  signature_ = &signature;
  instances_ = instances;
  in_list_ = in_instance_ = false;
  input_ = {};
  refusal_.clear();
  values_.Begin(body);
  if (JsonDirectReader(body, signature, kMaxTensors, &values_, instances).Read()) {
    return Status::Ok();
  }
  instances->Clear();
  values_.Begin(body);
  if (ReadDocument(body)) {
    return Status::Ok();
  }
  if (!values_.refusal().what.empty()) {
    refusal_.assign(kPrefix).append(Place()).append(values_.refusal().position).append(": ");
    refusal_.append(values_.refusal().what);
  }
  instances->Clear();
  const simdjson::error_code why = walker_.why();
  Status status = Validate(body);  // a defect in the JSON itself comes before what its content means
  if (!status.ok()) {
    return status;
  }
  if (refusal_.empty()) {
    refusal_.assign(kPrefix).append(simdjson::error_message(why));
  }
  return {ErrorKind::kInvalidInput, std::move(refusal_)};
}

Status JsonRequestParser::Impl::Validate(std::span<const uint8_t> body) {
  if (walker_.Validate(body, kMaxDepth)) {
    return Status::Ok();
  }
  std::string message = "The request body is not valid JSON: ";
  if (body.empty()) {
    message += "it is empty";
  } else if (walker_.why() == simdjson::SUCCESS) {
    message.assign(kPrefix).append("values are nested deeper than ").append(std::to_string(kMaxDepth));
  } else {
    message += simdjson::error_message(walker_.why());
  }
  return {ErrorKind::kInvalidInput, std::move(message)};
}

void JsonRequestParser::Impl::Trim(size_t bytes) {
  if (values_.capacity() > bytes) {
    values_.Free();
  }
  if (walker_.capacity() > bytes) {
    walker_.Free();
  }
}

bool JsonRequestParser::Impl::ReadDocument(std::span<const uint8_t> body) {
  ondemand::document document;
  ondemand::json_type type{};
  if (!walker_.Begin(body, &document) || walker_.Fails(document.type().get(type))) {
    return false;
  }
  if (type != ondemand::json_type::object) {
    refusal_.assign(kPrefix).append("the request has to be an object with the key 'instances'");
    return false;
  }
  ondemand::object root;
  if (walker_.Fails(document.get_object().get(root))) {
    return false;
  }
  bool found = false;
  for (auto entry : root) {
    ondemand::field field;
    std::string_view key;
    if (walker_.Fails(std::move(entry).get(field)) || !walker_.Key(&field, &key)) {
      return false;
    }
    if (key != "instances") {
      if (!SkipIgnored(field.value(), 1)) {
        return false;
      }
      continue;
    }
    if (std::exchange(found, true)) {
      return Refuse("this key is given twice");
    }
    if (!ReadInstances(field.value())) {
      return false;
    }
  }
  if (!document.at_end()) {
    return !walker_.Fails(simdjson::TRAILING_CONTENT);
  }
  return found || Refuse("this key is missing in the request");
}

bool JsonRequestParser::Impl::ReadInstances(ondemand::value value) {
  const char first = FirstOf(value);
  if (first == '{') {
    return ReadInstance(value);
  }
  if (first != '[') {
    return Refuse("allowed are an object (input name: value) or an array of such objects, not " +
                  values_.Excerpt(TextOf(value)));
  }
  in_list_ = true;
  ondemand::array list;
  if (walker_.Fails(value.get_array().get(list))) {
    return false;
  }
  for (auto element : list) {
    ondemand::value instance;
    if (walker_.Fails(std::move(element).get(instance)) || !ReadInstance(instance)) {
      return false;
    }
  }
  return instances_->count > 0 || Refuse("json array, shape is empty; give at least one instance");
}

bool JsonRequestParser::Impl::ReadInstance(ondemand::value value) {
  in_instance_ = true;
  if (FirstOf(value) != '{') {
    return Refuse("an instance has to be an object (input name: value), not " + values_.Excerpt(TextOf(value)));
  }
  ondemand::object object;
  if (walker_.Fails(value.get_object().get(object))) {
    return false;
  }
  std::vector<TensorView>& tensors = instances_->tensors;
  const size_t inputs = signature_->inputs.size();
  const size_t first = tensors.size();
  if (first + inputs > kMaxTensors) {
    return Refuse("more than " + std::to_string(kMaxTensors) + " tensors in one request");
  }
  tensors.resize(first + inputs);
  size_t found = 0;
  if (!ReadInputs(object, first, &found) || (found < inputs && !CheckAllFound(first))) {
    return false;
  }
  ++instances_->count;
  in_instance_ = false;
  return true;
}

bool JsonRequestParser::Impl::ReadInputs(ondemand::object object, size_t first, size_t* found) {
  size_t expected = 0;
  bool empty = true;
  for (auto entry : object) {
    ondemand::field field;
    std::string_view key;
    if (walker_.Fails(std::move(entry).get(field)) || !walker_.Key(&field, &key)) {
      return false;
    }
    empty = false;
    const size_t index = FindInput(*signature_, key, expected);
    if (index == signature_->inputs.size()) {
      if (!SkipIgnored(field.value(), in_list_ ? 3 : 2)) {
        return false;
      }
      continue;
    }
    input_ = signature_->inputs[index];
    TensorView* tensor = &instances_->tensors[first + index];
    if (tensor->dtype != DataType::kUnknown) {
      return Refuse("this input is given twice");
    }
    if (!values_.Read(field.value(), tensor)) {
      return false;
    }
    input_ = {};
    ++*found;
    expected = index + 1;
  }
  return !empty || Refuse("json object, is empty; give at least one input");
}

bool JsonRequestParser::Impl::CheckAllFound(size_t first) {
  for (size_t i = 0; i < signature_->inputs.size(); ++i) {
    if (instances_->tensors[first + i].dtype == DataType::kUnknown) {
      refusal_ = "Cannot find input " + signature_->inputs[i] + " in instance input (" + Place() + ")";
      return false;
    }
  }
  return true;
}

bool JsonRequestParser::Impl::SkipIgnored(ondemand::value value, int depth) {
  return walker_.Skip(value, kMaxDepth - depth);
}

bool JsonRequestParser::Impl::Refuse(std::string_view what) {
  refusal_.assign(kPrefix).append(Place()).append(": ").append(what);
  return false;
}

std::string JsonRequestParser::Impl::Place() const {
  std::string place = "instances";
  if (in_list_ && in_instance_) {
    place += '[' + std::to_string(instances_->count) + ']';
  }
  if (!input_.empty()) {
    place.append(1, '.').append(input_);
  }
  return place;
}

}  // namespace msserving
