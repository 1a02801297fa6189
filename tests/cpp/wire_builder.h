// Builds protobuf messages by hand, so that tests can say things that no protobuf library would write.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace msserving {

inline std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>(value | 0x80);
  }
  return out += static_cast<char>(value);
}

class Message {
 public:
  Message& Number(uint32_t field, uint64_t value) { return Raw(Varint(uint64_t{field} << 3)).Raw(Varint(value)); }
  Message& Bytes(uint32_t field, std::string_view bytes) {
    return Raw(Varint(uint64_t{field} << 3 | 2)).Raw(Varint(bytes.size())).Raw(bytes);
  }
  Message& Sub(uint32_t field, const Message& message) { return Bytes(field, message.text_); }
  Message& Packed(uint32_t field, std::initializer_list<int64_t> values) {
    std::string packed;
    for (const int64_t value : values) {
      packed += Varint(static_cast<uint64_t>(value));
    }
    return Bytes(field, packed);
  }
  Message& Raw(std::string_view bytes) {
    text_ += bytes;
    return *this;
  }

  const std::string& text() const { return text_; }
  std::span<const uint8_t> bytes() const { return {reinterpret_cast<const uint8_t*>(text_.data()), text_.size()}; }

 private:
  std::string text_;
};

inline std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The messages of proto/ms_service.proto as a client would usually write them.
inline Message Spec(std::string_view servable, std::string_view method, uint64_t version = 0) {
  Message spec;
  spec.Bytes(1, servable).Bytes(2, method);
  return version == 0 ? spec : spec.Number(3, version);
}

inline Message Tensor(std::initializer_list<int64_t> dims, uint64_t dtype, std::string_view data) {
  return Message().Sub(1, Message().Packed(1, dims)).Number(2, dtype).Bytes(3, data);
}

inline Message TextTensor(uint64_t dtype, std::string_view text) { return Message().Number(2, dtype).Bytes(4, text); }

inline Message Item(std::string_view name, const Message& tensor) { return Message().Bytes(1, name).Sub(2, tensor); }

inline Message Instance(std::initializer_list<Message> items) {
  Message instance;
  for (const Message& item : items) {
    instance.Sub(1, item);
  }
  return instance;
}

inline Message Request(const Message& spec, std::span<const Message> instances) {
  Message request;
  request.Sub(1, spec);
  for (const Message& instance : instances) {
    request.Sub(2, instance);
  }
  return request;
}

inline Message Request(const Message& spec, std::initializer_list<Message> instances) {
  return Request(spec, std::span(instances.begin(), instances.size()));
}

}  // namespace msserving
