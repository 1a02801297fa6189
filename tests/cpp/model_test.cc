// Rows of instances in batches: buckets, padding, splitting, in-place runs.
#include "worker/model.h"

#include <gtest/gtest.h>

#include <map>

#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

// Records the outcome of each row.
class Outcome final : public ModelSink {
 public:
  void OnRan(const ModelGraph& graph, std::span<const uint32_t> rows) override {
    groups.emplace_back(rows.begin(), rows.end());
    for (size_t i = 0; i < rows.size(); ++i) {
      const TensorView view = graph.Output(0, i);
      shapes[rows[i]].assign(view.dims, view.dims + view.rank);
      first[rows[i]] = view.data;
      std::vector<float> copy(view.bytes / sizeof(float));
      if (view.bytes > 0) {
        std::memcpy(copy.data(), view.data, view.bytes);
      }
      values[rows[i]] = copy;
    }
  }
  void OnFailed(uint32_t row, const Status& reason) override { failed.emplace(row, reason); }

  std::vector<std::vector<uint32_t>> groups;
  std::map<uint32_t, std::vector<float>> values;
  std::map<uint32_t, std::vector<int64_t>> shapes;
  std::map<uint32_t, const uint8_t*> first;
  std::map<uint32_t, Status> failed;
};

Outcome RunRows(ModelGraph& graph, std::vector<OwnedTensor>& tensors) {
  std::vector<const TensorView*> pointers;
  for (OwnedTensor& tensor : tensors) {
    pointers.push_back(&tensor.View());
  }
  Outcome outcome;
  graph.Run(static_cast<uint32_t>(tensors.size() / graph.inputs()), pointers.data(), &outcome);
  return outcome;
}

std::unique_ptr<Model> Batched(SessionOptions options, std::vector<uint32_t> without = {}, uint32_t batch_size = 0) {
  return MakeModel(options, {true, std::move(without), batch_size});
}

Status CreateError(const SessionOptions& options, const ModelOptions& model_options) {
  std::unique_ptr<Model> model;
  return Model::Create({OpenDouble(options)}, model_options, &model);
}

TEST(Model, PadsToTheSmallestBucketAndDropsThePadding) {
  auto model = Batched({{"op", "negate"}, {"inputs", "float32[8,2]"}, {"batch_sizes", "1,4,8"}});
  EXPECT_EQ(model->max_batch(), 8U);
  std::vector<OwnedTensor> rows;
  for (int i = 0; i < 3; ++i) {
    rows.push_back(Floats({2}, {static_cast<float>(i), 1}));
  }
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.groups, (std::vector<std::vector<uint32_t>>{{0, 1, 2}}));
  EXPECT_EQ(outcome.values.at(2), (std::vector<float>{-2, -1}));
  EXPECT_EQ(outcome.shapes.at(2), std::vector<int64_t>{2});
  EXPECT_EQ(model->graph(0).counters().padded, 1U);
}

TEST(Model, PaddingRepeatsTheFirstRow) {
  auto model = Batched({{"op", "identity"}, {"inputs", "float32[4,1]"}});
  std::vector<OwnedTensor> rows{Floats({1}, {7}), Floats({1}, {8})};
  const Outcome outcome = RunRows(model->graph(0), rows);
  float whole[4];
  std::memcpy(whole, outcome.first.at(0), sizeof(whole));
  EXPECT_EQ(std::vector<float>(whole, whole + 4), (std::vector<float>{7, 8, 7, 7}));
}

TEST(Model, OneAlignedRowRunsInPlace) {
  auto model = Batched({{"op", "identity"}, {"inputs", "float32[4,16]"}, {"batch_sizes", "1,4"}});
  alignas(64) float values[16] = {5};
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(values);
  view.bytes = sizeof(values);
  view.dtype = DataType::kFloat32;
  view.rank = 1;
  view.dims[0] = 16;
  const TensorView* pointer = &view;
  Outcome outcome;
  model->graph(0).Run(1, &pointer, &outcome);
  EXPECT_EQ(outcome.first.at(0), view.data);
  EXPECT_EQ(model->graph(0).counters().in_place, 1U);
}

TEST(Model, MisalignedRowIsCopied) {
  auto model = Batched({{"op", "negate"}, {"inputs", "float32[1,2]"}});
  alignas(64) uint8_t memory[64];
  const float values[2] = {1, 2};
  std::memcpy(memory + 4, values, sizeof(values));
  TensorView view;
  view.data = memory + 4;
  view.bytes = sizeof(values);
  view.dtype = DataType::kFloat32;
  view.rank = 1;
  view.dims[0] = 2;
  const TensorView* pointer = &view;
  Outcome outcome;
  model->graph(0).Run(1, &pointer, &outcome);
  EXPECT_EQ(outcome.values.at(0), (std::vector<float>{-1, -2}));
  EXPECT_EQ(model->graph(0).counters().in_place, 0U);
}

TEST(Model, WithoutBatchDimEachInstanceRunsByItself) {
  auto model = MakeModel({{"op", "add"}, {"inputs", "float32[2];float32[2]"}}, {});
  EXPECT_EQ(model->max_batch(), 1U);
  std::vector<OwnedTensor> rows;
  for (int i = 0; i < 3; ++i) {
    rows.push_back(Floats({2}, {static_cast<float>(i), 0}));
    rows.push_back(Floats({2}, {1, 1}));
  }
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.groups, (std::vector<std::vector<uint32_t>>{{0}, {1}, {2}}));
  EXPECT_EQ(outcome.values.at(2), (std::vector<float>{3, 1}));
}

TEST(Model, ReshapeOfTheSameSizeIsTaken) {
  auto model = MakeModel({{"op", "negate"}, {"inputs", "float32[2,2]"}}, {});
  std::vector<OwnedTensor> rows{Floats({4}, {1, 2, 3, 4})};
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.shapes.at(0), (std::vector<int64_t>{2, 2}));
}

TEST(Model, BadRowFailsAlone) {
  auto model =
      Batched({{"op", "negate"}, {"inputs", "float32[4,1]"}, {"batch_sizes", "1,4"}, {"fail_if_first_element", "13"}});
  std::vector<OwnedTensor> rows{Floats({1}, {1}), Floats({1}, {13}), Floats({1}, {3})};
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.failed.size(), 1U);
  EXPECT_EQ(outcome.failed.at(1).kind(), ErrorKind::kStageFailed);
  EXPECT_EQ(outcome.values.at(0)[0], -1);
  EXPECT_EQ(outcome.values.at(2)[0], -3);
  EXPECT_EQ(model->graph(0).counters().splits, 1U);
  EXPECT_EQ(model->graph(0).counters().runs, 4U);  // together, then one by one
}

TEST(Model, RowOfTheWrongSizeNeverReachesTheSession) {
  auto model = Batched({{"op", "negate"}, {"inputs", "float32[4,2]"}});
  std::vector<OwnedTensor> rows{Floats({2}, {1, 2}), Floats({3}, {1, 2, 3}), Floats({2}, {5, 6})};
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.failed.at(1).kind(), ErrorKind::kInvalidInput);
  EXPECT_EQ(outcome.groups, (std::vector<std::vector<uint32_t>>{{0, 2}}));
}

TEST(Model, DifferentValuesOfAnInputWithoutBatchDimSplitTheBatch) {
  auto model = Batched({{"op", "add"},
                        {"inputs", "float32[4,2];float32[2]"},
                        {"batch_sizes", "1,2,4"},
                        {"without_batch_dim_inputs", "1"}},
                       {1});
  std::vector<OwnedTensor> rows;
  for (const float shared : {10.0F, 20.0F, 10.0F, 20.0F}) {
    rows.push_back(Floats({2}, {1, 2}));
    rows.push_back(Floats({2}, {shared, shared}));
  }
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.groups, (std::vector<std::vector<uint32_t>>{{0, 2}, {1, 3}}));
  EXPECT_EQ(outcome.values.at(2), (std::vector<float>{11, 12}));
  EXPECT_EQ(outcome.values.at(3), (std::vector<float>{21, 22}));
}

TEST(Model, DynamicBatchRunsExactlyItsRows) {
  auto model = Batched({{"op", "negate"}, {"inputs", "float32[-1,2]"}}, {}, 8);
  EXPECT_EQ(model->max_batch(), 8U);
  std::vector<OwnedTensor> rows(3, Floats({2}, {1, 2}));
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.groups.size(), 1U);
  EXPECT_EQ(model->graph(0).counters().padded, 0U);
}

TEST(Model, DynamicShapesBatchAsFarAsTheyAgree) {
  auto model = Batched({{"op", "negate"}, {"inputs", "float32[-1,-1]"}}, {}, 8);
  std::vector<OwnedTensor> rows{Floats({2}, {1, 2}), Floats({3}, {1, 2, 3}), Floats({2}, {5, 6}), Floats({1}, {9})};
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.groups, (std::vector<std::vector<uint32_t>>{{0, 2}, {1}, {3}}));
  EXPECT_EQ(outcome.values.at(1), (std::vector<float>{-1, -2, -3}));
}

TEST(Model, ZeroSizeRowsRun) {
  auto model = Batched({{"op", "negate"}, {"inputs", "float32[-1,-1]"}}, {}, 8);
  std::vector<OwnedTensor> rows{Floats({0}, {}), Floats({0}, {})};
  const Outcome outcome = RunRows(model->graph(0), rows);
  EXPECT_EQ(outcome.values.at(1), std::vector<float>{});
  EXPECT_EQ(outcome.shapes.at(1), std::vector<int64_t>{0});
}

TEST(Model, RefusesOptionsThatDoNotFitTheGraph) {
  const SessionOptions fixed{{"op", "add"}, {"inputs", "float32[4,2];float32[4,2]"}};
  EXPECT_NE(CreateError(fixed, {true, {2}, 0}).message().find("without_batch_dim_inputs names input 2"),
            std::string::npos);
  EXPECT_NE(CreateError(fixed, {false, {0}, 0}).message().find("of a model without batch dimension"),
            std::string::npos);
  EXPECT_NE(CreateError(fixed, {true, {}, 5}).message().find("batch size 5 is more than the model takes, 4"),
            std::string::npos);
  EXPECT_NE(CreateError({{"op", "identity"}, {"inputs", "float32[4,2];float32[2,2]"}}, {true, {}, 0})
                .message()
                .find("disagree about the batch size"),
            std::string::npos);
  EXPECT_NE(CreateError({{"op", "negate"}, {"inputs", "float32[]"}}, {true, {}, 0}).message().find("is a scalar"),
            std::string::npos);
}

TEST(Model, SubgraphsMustHaveOneBatchSize) {
  std::unique_ptr<Model> model;
  const Status status = Model::Create({OpenDouble({{"op", "negate"}, {"inputs", "float32[4,2]"}}),
                                       OpenDouble({{"op", "negate"}, {"inputs", "float32[8,2]"}})},
                                      {true, {}, 0}, &model);
  EXPECT_NE(status.message().find("must have one batch size"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace msserving
