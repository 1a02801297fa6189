// Frames of a distributed servable: whatever comes, cut anywhere, is refused or read without touching what is not
// there.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "distributed/frame.h"

namespace {

using msserving::FrameBody;
using msserving::FrameKind;
using msserving::FrameReader;
using msserving::Status;

// Reads every byte that a tensor is said to have.
void Touch(const std::vector<MsServingTensor>& tensors) {
  unsigned sum = 0;
  for (const MsServingTensor& tensor : tensors) {
    if (!msserving::IsWhole(tensor)) {
      std::abort();
    }
    for (uint64_t i = 0; tensor.data != nullptr && i < tensor.bytes; ++i) {
      sum += static_cast<const uint8_t*>(tensor.data)[i];
    }
  }
  if (sum == 1u << 31) {
    std::abort();
  }
}

class Sink final : public msserving::FrameSink {
 public:
  Status OnFrame(FrameKind kind, FrameBody* body) override {
    std::vector<MsServingTensor> tensors;
    msserving::RunHead run;
    msserving::DoneHead done;
    std::vector<msserving::RankModel> models;
    FrameReader reader(body->bytes());
    switch (kind) {
      case FrameKind::kRun:
        if (ReadRun(body->bytes(), &run, &tensors)) {
          Touch(tensors);
        }
        break;
      case FrameKind::kDone:
        if (ReadDone(body->bytes(), &done, &tensors)) {
          Touch(tensors);
        }
        break;
      case FrameKind::kRegister:
        if (ReadModels(&reader, &models) && (models.empty() || models.size() > msserving::kMaxModels)) {
          std::abort();
        }
        break;
      default:
        while (reader.ok() && !reader.AtEnd()) {
          reader.Text();
          reader.U32();
        }
    }
    return Status::Ok();
  }
};

}  // namespace

// The first byte says how the rest is cut.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  msserving::FrameParser parser(msserving::kMaxSmallFrame);
  Sink sink;
  const size_t piece = data[0] == 0 ? size : data[0];
  for (size_t at = 1; at < size; at += piece) {
    if (!parser.Feed({data + at, std::min(piece, size - at)}, &sink).ok()) {
      break;
    }
  }
  return 0;
}
