#include "distributed/rank_agreement.h"

#include <algorithm>
#include <iterator>
#include <optional>

namespace msserving {
namespace {

std::string InfoText(const TensorInfo& info) {
  std::string text = std::string(NameOf(info.dtype)) + "[";
  if (info.rank < 0) {
    return text + "any shape]";
  }
  for (int d = 0; d < info.rank; ++d) {
    text += (d > 0 ? ", " : "") + std::to_string(info.dims[static_cast<size_t>(d)]);
  }
  return text + "]";
}

std::string InfosText(const std::vector<TensorInfo>& infos) {
  std::string text;
  for (const TensorInfo& info : infos) {
    text += (text.empty() ? "" : ", ") + InfoText(info);
  }
  return text.empty() ? "none" : text;
}

bool Same(const TensorInfo& a, const TensorInfo& b) {
  return a.dtype == b.dtype && a.rank == b.rank &&
         std::equal(a.dims.begin(), a.dims.begin() + std::max(a.rank, 0), b.dims.begin());
}

bool Same(const std::vector<TensorInfo>& a, const std::vector<TensorInfo>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const TensorInfo& x, const TensorInfo& y) { return Same(x, y); });
}

// Unknown dimensions fit all: the ways in which two ranks run their graphs may know more or less of them.
bool Fit(const TensorInfo& a, const TensorInfo& b) {
  if (a.dtype != b.dtype || (a.rank != b.rank && a.rank >= 0 && b.rank >= 0)) {
    return false;
  }
  for (int d = 0; d < std::min(a.rank, b.rank); ++d) {
    const auto i = static_cast<size_t>(d);
    if (a.dims[i] != b.dims[i] && a.dims[i] >= 0 && b.dims[i] >= 0) {
      return false;
    }
  }
  return true;
}

bool Fit(const std::vector<TensorInfo>& a, const std::vector<TensorInfo>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const TensorInfo& x, const TensorInfo& y) { return Fit(x, y); });
}

Status Disagree(const char* what, size_t subgraph, const RankDescription& a, const std::vector<TensorInfo>& of_a,
                const RankDescription& b, const std::vector<TensorInfo>& of_b) {
  return Status(ErrorKind::kInvalidInput, std::string("the ") + what + " of sub-graph " + std::to_string(subgraph) +
                                              " disagree: " + RankText(a.rank, a.host) + " has " + InfosText(of_a) +
                                              " (" + a.models[subgraph].file + "), " + RankText(b.rank, b.host) +
                                              " has " + InfosText(of_b) + " (" + b.models[subgraph].file + ")");
}

// The sizes that a rank's graph can be run with; nothing: it says nothing about that.
std::optional<std::vector<int64_t>> SizesOf(const SessionInfo& info) {
  if (!info.batch_sizes.empty()) {
    return info.batch_sizes;
  }
  // A later stage without inputs has no dimension of which one could tell that it is the batch.
  if (!info.inputs.empty() && info.inputs[0].rank > 0 && info.inputs[0].dims[0] > 0) {
    return std::vector<int64_t>{info.inputs[0].dims[0]};
  }
  return std::nullopt;
}

Status AgreeOnSizes(const std::vector<RankDescription>& ranks, size_t subgraph, SessionInfo* made) {
  const bool several = std::any_of(ranks.begin(), ranks.end(), [subgraph](const RankDescription& rank) {
    return !rank.models[subgraph].info.batch_sizes.empty();
  });
  if (!several) {
    return Status::Ok();
  }
  std::optional<std::vector<int64_t>> common;
  for (const RankDescription& rank : ranks) {
    const auto sizes = SizesOf(rank.models[subgraph].info);
    if (!sizes) {
      continue;
    }
    std::vector<int64_t> both;
    if (common) {
      std::set_intersection(common->begin(), common->end(), sizes->begin(), sizes->end(), std::back_inserter(both));
    } else {
      both = *sizes;
    }
    common = std::move(both);
  }
  if (common->empty()) {
    return Status(ErrorKind::kInvalidInput,
                  "there is no batch size that sub-graph " + std::to_string(subgraph) + " has on all ranks");
  }
  made->batch_sizes = std::move(*common);
  return Status::Ok();
}

}  // namespace

std::string RankText(uint32_t rank, const std::string& host) {
  return "rank " + std::to_string(rank) + (host.empty() ? "" : " on " + host);
}

std::string ListText(const std::vector<uint32_t>& ranks) {
  std::string text;
  for (const uint32_t rank : ranks) {
    text += (text.empty() ? "" : ", ") + std::to_string(rank);
  }
  return text;
}

Status AgreeOnModels(const std::vector<RankDescription>& ranks, uint32_t stage_size,
                     std::vector<SessionInfo>* subgraphs) {
  const auto rank_size = static_cast<uint32_t>(ranks.size());
  const uint32_t in_stage = rank_size / stage_size;
  const RankDescription& first = ranks.front();
  const RankDescription& last = ranks.back();
  for (const RankDescription& rank : ranks) {
    if (rank.models.size() != first.models.size()) {
      return Status(ErrorKind::kInvalidInput,
                    RankText(rank.rank, rank.host) + " has " + std::to_string(rank.models.size()) + " sub-graphs, " +
                        RankText(first.rank, first.host) + " has " + std::to_string(first.models.size()));
    }
  }
  subgraphs->clear();
  for (size_t s = 0; s < first.models.size(); ++s) {
    const std::vector<TensorInfo>& inputs = first.models[s].info.inputs;
    for (const RankDescription& rank : ranks) {
      const uint32_t stage = StageOf(rank.rank, rank_size, stage_size);
      const SessionInfo& info = rank.models[s].info;
      if (!Same(info.inputs, inputs) && (stage == 0 || !info.inputs.empty())) {
        return Disagree("inputs", s, first, inputs, rank, info.inputs);
      }
      const RankDescription& leader = ranks[size_t{stage} * in_stage];
      if (!Fit(info.outputs, leader.models[s].info.outputs)) {
        return Disagree("outputs", s, leader, leader.models[s].info.outputs, rank, info.outputs);
      }
    }
    SessionInfo made;
    made.inputs = inputs;
    made.outputs = last.models[s].info.outputs;
    made.way = std::to_string(rank_size) + (rank_size == 1 ? " rank: " : " ranks: ") + last.models[s].info.way;
    if (Status status = AgreeOnSizes(ranks, s, &made); !status.ok()) {
      return status;
    }
    subgraphs->push_back(std::move(made));
  }
  return Status::Ok();
}

}  // namespace msserving
