#include "distributed/frame.h"

#include <algorithm>
#include <new>

namespace msserving {
namespace {

constexpr size_t kFirstBody = size_t{256} << 10;

void WriteInfos(const std::vector<TensorInfo>& infos, FrameWriter* writer) {
  writer->U32(static_cast<uint32_t>(infos.size()));
  for (const TensorInfo& info : infos) {
    writer->ShortText(info.name);
    writer->U8(static_cast<uint8_t>(info.dtype));
    writer->U8(static_cast<uint8_t>(info.rank + 1));
    for (int d = 0; d < info.rank; ++d) {
      writer->U64(static_cast<uint64_t>(info.dims[static_cast<size_t>(d)]));
    }
  }
}

bool ReadInfos(FrameReader* reader, std::vector<TensorInfo>* infos) {
  const uint32_t count = reader->U32();
  if (!reader->ok() || count > kMaxTensors) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    TensorInfo info;
    info.name = reader->Text();
    const uint8_t dtype = reader->U8();
    const int rank = static_cast<int>(reader->U8()) - 1;
    if (!reader->ok() || rank > kMaxRank || ItemSize(static_cast<DataType>(dtype)) == 0) {
      return false;
    }
    info.dtype = static_cast<DataType>(dtype);
    info.rank = rank;
    for (int d = 0; d < rank; ++d) {
      const auto dim = static_cast<int64_t>(reader->U64());
      if (!reader->ok() || dim < -1) {
        return false;
      }
      info.dims[static_cast<size_t>(d)] = dim;
    }
    infos->push_back(std::move(info));
  }
  return true;
}

void WriteTensor(const MsServingTensor& tensor, FrameWriter* writer) {
  writer->U8(static_cast<uint8_t>(tensor.dtype));
  writer->U8(static_cast<uint8_t>(tensor.rank));
  for (int d = 0; d < tensor.rank; ++d) {
    writer->U64(static_cast<uint64_t>(tensor.dims[d]));
  }
}

// The head is as long as it will be; pads it so that bytes may follow, and sums up what follows.
uint64_t EndHead(std::span<const MsServingTensor> tensors, bool data, FrameWriter* head) {
  uint64_t size = head->body().size();
  if (data) {
    constexpr char kZero[64] = {};
    head->Raw(kZero, PadOf(size));
    size += PadOf(size);
    for (const MsServingTensor& tensor : tensors) {
      if (tensor.bytes > kMaxRunFrame) {
        return 0;
      }
      size += tensor.bytes + PadOf(tensor.bytes);
    }
  }
  return size > kMaxRunFrame ? 0 : size;
}

bool ReadTensors(std::span<const uint8_t> body, FrameReader* reader, bool data, std::vector<MsServingTensor>* tensors) {
  const uint32_t count = reader->U32();
  if (!reader->ok() || count > kMaxTensors) {
    return false;
  }
  tensors->clear();
  for (uint32_t i = 0; i < count; ++i) {
    MsServingTensor tensor{};
    tensor.dtype = reader->U8();
    tensor.rank = reader->U8();
    if (!reader->ok() || tensor.rank > kMaxRank) {
      return false;
    }
    for (int d = 0; d < tensor.rank; ++d) {
      tensor.dims[d] = static_cast<int64_t>(reader->U64());
    }
    const size_t item = ItemSize(static_cast<DataType>(tensor.dtype));
    const int64_t elements = ElementCount({tensor.dims, static_cast<size_t>(tensor.rank)});
    if (!reader->ok() || item == 0 || elements < 0 || static_cast<uint64_t>(elements) > UINT64_MAX / 8) {
      return false;
    }
    tensor.bytes = static_cast<uint64_t>(elements) * item;
    tensors->push_back(tensor);
  }
  if (!data) {
    return reader->AtEnd();
  }
  uint64_t at = body.size() - reader->Rest().size();
  at += PadOf(at);
  for (MsServingTensor& tensor : *tensors) {
    if (at > body.size() || tensor.bytes > body.size() - at) {
      return false;
    }
    tensor.data = const_cast<uint8_t*>(body.data() + at);
    at += tensor.bytes + PadOf(tensor.bytes);
  }
  return at == body.size();
}

}  // namespace

std::string_view FrameReader::Text(size_t limit) {
  const uint32_t size = U32();
  if (!ok_ || size > limit || size > left_.size()) {
    Fail();
    return {};
  }
  const std::string_view text(reinterpret_cast<const char*>(left_.data()), size);
  left_ = left_.subspan(size);
  return text;
}

void WriteModels(const std::vector<RankModel>& models, FrameWriter* writer) {
  writer->U32(static_cast<uint32_t>(models.size()));
  for (const RankModel& model : models) {
    writer->ShortText(model.file);
    writer->ShortText(model.info.way);
    WriteInfos(model.info.inputs, writer);
    WriteInfos(model.info.outputs, writer);
    writer->U32(static_cast<uint32_t>(model.info.batch_sizes.size()));
    for (const int64_t size : model.info.batch_sizes) {
      writer->U64(static_cast<uint64_t>(size));
    }
  }
}

bool ReadModels(FrameReader* reader, std::vector<RankModel>* models) {
  const uint32_t count = reader->U32();
  if (!reader->ok() || count == 0 || count > kMaxModels) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    RankModel model;
    model.file = reader->Text();
    model.info.way = reader->Text();
    if (!reader->ok() || !ReadInfos(reader, &model.info.inputs) || !ReadInfos(reader, &model.info.outputs) ||
        model.info.outputs.empty()) {
      return false;
    }
    const uint32_t sizes = reader->U32();
    if (!reader->ok() || sizes > kMaxTensors) {
      return false;
    }
    int64_t before = 0;
    for (uint32_t s = 0; s < sizes; ++s) {
      const auto size = static_cast<int64_t>(reader->U64());
      if (!reader->ok() || size <= before) {
        return false;
      }
      model.info.batch_sizes.push_back(size);
      before = size;
    }
    models->push_back(std::move(model));
  }
  return reader->AtEnd();
}

uint64_t WriteRun(const RunHead& run, std::span<const MsServingTensor> tensors, FrameWriter* head) {
  head->Clear();
  head->U64(run.seq);
  head->U32(run.subgraph);
  head->U8(run.wants_outputs ? 1 : 0);
  head->U32(static_cast<uint32_t>(tensors.size()));
  for (const MsServingTensor& tensor : tensors) {
    WriteTensor(tensor, head);
  }
  return EndHead(tensors, true, head);
}

uint64_t WriteDone(const DoneHead& done, std::span<const MsServingTensor> tensors, bool data, FrameWriter* head) {
  head->Clear();
  head->U64(done.seq);
  head->U8(done.failed ? 1 : 0);
  head->U8(data ? 1 : 0);
  head->ShortText(done.text);
  head->U32(static_cast<uint32_t>(tensors.size()));
  for (const MsServingTensor& tensor : tensors) {
    WriteTensor(tensor, head);
  }
  return EndHead(tensors, data, head);
}

bool ReadRun(std::span<const uint8_t> body, RunHead* run, std::vector<MsServingTensor>* tensors) {
  FrameReader reader(body);
  run->seq = reader.U64();
  run->subgraph = reader.U32();
  const uint8_t wants = reader.U8();
  run->wants_outputs = wants == 1;
  return reader.ok() && wants <= 1 && ReadTensors(body, &reader, true, tensors);
}

bool ReadDone(std::span<const uint8_t> body, DoneHead* done, std::vector<MsServingTensor>* tensors) {
  FrameReader reader(body);
  done->seq = reader.U64();
  const uint8_t failed = reader.U8();
  const uint8_t data = reader.U8();
  done->failed = failed == 1;
  done->text = reader.Text();
  return reader.ok() && failed <= 1 && data <= 1 && ReadTensors(body, &reader, data == 1, tensors);
}

bool IsWhole(const MsServingTensor& tensor) {
  if (tensor.rank < 0 || tensor.rank > kMaxRank || tensor.dtype < 0 || tensor.dtype >= kDataTypeCount) {
    return false;
  }
  const size_t item = ItemSize(static_cast<DataType>(tensor.dtype));
  const int64_t elements = ElementCount({tensor.dims, static_cast<size_t>(tensor.rank)});
  return item != 0 && elements >= 0 && static_cast<uint64_t>(elements) <= UINT64_MAX / 8 &&
         static_cast<uint64_t>(elements) * item == tensor.bytes;
}

void FrameBody::Append(std::span<const uint8_t> bytes, size_t whole) {
  const size_t needed = size_ + bytes.size();
  if (needed > capacity_) {
    const size_t wanted = std::max(needed, std::min(whole, std::max(kFirstBody, capacity_ * 2)));
    const size_t rounded = (wanted + 63) / 64 * 64;
    std::unique_ptr<uint8_t[], Free> grown(static_cast<uint8_t*>(std::aligned_alloc(64, rounded)));
    if (grown == nullptr) {
      throw std::bad_alloc();
    }
    if (size_ > 0) {
      std::memcpy(grown.get(), data_.get(), size_);
    }
    data_ = std::move(grown);
    capacity_ = rounded;
  }
  if (!bytes.empty()) {
    std::memcpy(data_.get() + size_, bytes.data(), bytes.size());
    size_ = needed;
  }
}

Status FrameParser::ReadHeader() {
  std::memcpy(&body_size_, header_, sizeof(body_size_));
  const uint8_t kind = header_[4];
  if (kind == 0 || kind >= static_cast<uint8_t>(FrameKind::kCount) || (header_[5] | header_[6] | header_[7]) != 0) {
    return Status(ErrorKind::kInvalidInput, "what came is no frame of a distributed servable");
  }
  if (body_size_ > max_body_) {
    return Status(ErrorKind::kInvalidInput, "a frame of " + std::to_string(body_size_) + " bytes came where at most " +
                                                std::to_string(max_body_) + " are allowed");
  }
  kind_ = static_cast<FrameKind>(kind);
  body_.Clear();
  return Status::Ok();
}

Status FrameParser::Feed(std::span<const uint8_t> bytes, FrameSink* sink) {
  while (!bytes.empty()) {
    if (header_size_ < kFrameHeaderBytes) {
      const size_t taken = std::min(bytes.size(), kFrameHeaderBytes - header_size_);
      std::memcpy(header_ + header_size_, bytes.data(), taken);
      header_size_ += taken;
      bytes = bytes.subspan(taken);
      if (header_size_ < kFrameHeaderBytes) {
        break;
      }
      if (Status status = ReadHeader(); !status.ok()) {
        return status;
      }
    }
    const size_t taken = std::min<size_t>(bytes.size(), body_size_ - body_.size());
    body_.Append(bytes.first(taken), body_size_);
    bytes = bytes.subspan(taken);
    if (body_.size() < body_size_) {
      break;
    }
    header_size_ = 0;
    if (Status status = sink->OnFrame(kind_, &body_); !status.ok()) {
      return status;
    }
    body_.Clear();
  }
  return Status::Ok();
}

void MakeFrameHeader(FrameKind kind, uint32_t body_bytes, uint8_t (*header)[kFrameHeaderBytes]) {
  std::memset(*header, 0, kFrameHeaderBytes);
  std::memcpy(*header, &body_bytes, sizeof(body_bytes));
  (*header)[4] = static_cast<uint8_t>(kind);
}

}  // namespace msserving
