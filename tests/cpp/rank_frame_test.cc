#include "distributed/frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "rank_test_support.h"

namespace msserving {
namespace {

using testing::FloatInfo;
using testing::Floats;
using testing::FloatTensor;

// Keeps what the parser finds.
class Frames final : public FrameSink {
 public:
  Status OnFrame(FrameKind kind, FrameBody* body) override {
    kinds.push_back(kind);
    bodies.emplace_back(body->bytes().begin(), body->bytes().end());
    return Status::Ok();
  }
  std::vector<FrameKind> kinds;
  std::vector<std::string> bodies;
};

std::string Frame(FrameKind kind, const std::string& body) {
  uint8_t header[kFrameHeaderBytes];
  MakeFrameHeader(kind, static_cast<uint32_t>(body.size()), &header);
  return std::string(reinterpret_cast<const char*>(header), sizeof(header)) + body;
}

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(FrameParserTest, FramesArriveHoweverTheyAreCut) {
  const std::string wire = Frame(FrameKind::kPing, "") + Frame(FrameKind::kStop, "why") + Frame(FrameKind::kReady, "") +
                           Frame(FrameKind::kDone, std::string(1000, 'x'));
  for (const size_t piece : {size_t{1}, size_t{3}, size_t{7}, size_t{8}, size_t{9}, wire.size()}) {
    FrameParser parser(kMaxSmallFrame);
    Frames frames;
    for (size_t at = 0; at < wire.size(); at += piece) {
      ASSERT_TRUE(parser.Feed(Bytes(wire.substr(at, piece)), &frames).ok());
    }
    EXPECT_EQ(frames.kinds,
              (std::vector<FrameKind>{FrameKind::kPing, FrameKind::kStop, FrameKind::kReady, FrameKind::kDone}));
    EXPECT_EQ(frames.bodies, (std::vector<std::string>{"", "why", "", std::string(1000, 'x')}));
  }
}

TEST(FrameParserTest, ABodyThatIsTakenAwayDoesNotDisturbTheNext) {
  class Thief final : public FrameSink {
   public:
    Status OnFrame(FrameKind, FrameBody* body) override {
      taken.push_back(std::move(*body));
      return Status::Ok();
    }
    std::vector<FrameBody> taken;
  } thief;
  FrameParser parser(kMaxSmallFrame);
  const std::string wire = Frame(FrameKind::kRun, "first") + Frame(FrameKind::kRun, "the second");
  ASSERT_TRUE(parser.Feed(Bytes(wire), &thief).ok());
  ASSERT_EQ(thief.taken.size(), 2u);
  EXPECT_EQ(std::string(thief.taken[0].bytes().begin(), thief.taken[0].bytes().end()), "first");
  EXPECT_EQ(std::string(thief.taken[1].bytes().begin(), thief.taken[1].bytes().end()), "the second");
}

TEST(FrameParserTest, WhatIsTooLargeOrNoFrameIsRefusedByItsHeader) {
  const auto feed = [](const std::string& wire) {
    FrameParser parser(100);
    Frames frames;
    return parser.Feed(Bytes(wire), &frames);
  };
  EXPECT_TRUE(feed(Frame(FrameKind::kStop, std::string(100, 'x'))).ok());
  EXPECT_EQ(feed(Frame(FrameKind::kStop, std::string(101, 'x')).substr(0, 8)).message(),
            "a frame of 101 bytes came where at most 100 are allowed");
  EXPECT_FALSE(feed(std::string("\0\0\0\0\0\0\0\0", 8)).ok());      // kind 0
  EXPECT_FALSE(feed(std::string("\0\0\0\0\x7f\0\0\0", 8)).ok());    // a kind that there is not
  EXPECT_FALSE(feed(std::string("\0\0\0\0\x01\0\x01\0", 8)).ok());  // bytes that are zero
  EXPECT_FALSE(feed("GET / HTTP/1.1\r\n\r\n").ok());
}

TEST(FrameTensorsTest, RunsAndAnswersSurviveTheWire) {
  std::vector<float> a{1, 2, 3, 4, 5, 6};
  std::vector<float> b{7};
  const std::vector<MsServingTensor> tensors{FloatTensor(&a, {2, 3}), FloatTensor(&b, {})};
  FrameWriter head;
  const uint64_t size = WriteRun({42, 3, true}, tensors, &head);
  std::string body = head.body();
  for (const MsServingTensor& tensor : tensors) {
    body.append(static_cast<const char*>(tensor.data), tensor.bytes);
    body.append(PadOf(tensor.bytes), '\0');
  }
  ASSERT_EQ(body.size(), size);
  FrameBody aligned;
  aligned.Append(Bytes(body), body.size());
  RunHead run;
  std::vector<MsServingTensor> read;
  ASSERT_TRUE(ReadRun(aligned.bytes(), &run, &read));
  EXPECT_EQ(run.seq, 42u);
  EXPECT_EQ(run.subgraph, 3u);
  EXPECT_TRUE(run.wants_outputs);
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(Floats(read[0]), a);
  EXPECT_EQ(Floats(read[1]), b);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read[1].data) % 64, 0u);
  for (size_t cut = 0; cut < body.size(); ++cut) {
    FrameBody part;
    part.Append(Bytes(body.substr(0, cut)), cut);
    EXPECT_FALSE(ReadRun(part.bytes(), &run, &read)) << cut;
  }
  DoneHead done;
  EXPECT_GT(WriteDone({42, false, ""}, tensors, false, &head), 0u);
  ASSERT_TRUE(ReadDone(Bytes(head.body()), &done, &read));
  EXPECT_EQ(done.seq, 42u);
  EXPECT_EQ(read[0].dims[1], 3);
  EXPECT_EQ(read[0].data, nullptr);
}

TEST(FrameModelsTest, ModelsSurviveTheWireAndCutOnesAreRefused) {
  RankModel model;
  model.file = "a.mindir";
  model.info.way = "kernel replay";
  model.info.inputs = {FloatInfo({4, -1}), FloatInfo({})};
  model.info.inputs[0].name = "x";
  model.info.outputs = {FloatInfo({4})};
  model.info.outputs[0].rank = -1;
  model.info.batch_sizes = {1, 2, 4};
  FrameWriter writer;
  WriteModels({model, model}, &writer);
  std::vector<RankModel> read;
  FrameReader reader(Bytes(writer.body()));
  ASSERT_TRUE(ReadModels(&reader, &read));
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[1].file, "a.mindir");
  EXPECT_EQ(read[1].info.way, "kernel replay");
  EXPECT_EQ(read[1].info.inputs[0].name, "x");
  EXPECT_EQ(read[1].info.inputs[0].dims[1], -1);
  EXPECT_EQ(read[1].info.inputs[1].rank, 0);
  EXPECT_EQ(read[1].info.outputs[0].rank, -1);
  EXPECT_EQ(read[1].info.batch_sizes, (std::vector<int64_t>{1, 2, 4}));
  for (size_t cut = 0; cut < writer.body().size(); ++cut) {
    std::vector<RankModel> none;
    FrameReader part(Bytes(writer.body()).first(cut));
    EXPECT_FALSE(ReadModels(&part, &none)) << cut;
  }
}

}  // namespace
}  // namespace msserving
