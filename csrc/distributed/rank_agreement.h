// What many ranks' sub-graphs are as one: they must fit together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "distributed/frame.h"

namespace msserving {

struct RankDescription {
  uint32_t rank = 0;
  std::string host;
  bool local = false;  // shares memory with the worker
  std::vector<RankModel> models;
};

// rank_size is a multiple of stage_size; ranks of one stage are neighbours.
inline uint32_t StageOf(uint32_t rank, uint32_t rank_size, uint32_t stage_size) {
  return rank / (rank_size / stage_size);
}

// One description for each sub-graph, as one session has it: the inputs of stage 0, the outputs of the last rank, the
// batch sizes that all have. The error names the ranks that disagree, and about what: all must have as many sub-graphs;
// those of stage 0 take the same inputs, those of later stages the same or none; those of one stage give the same
// outputs.
Status AgreeOnModels(const std::vector<RankDescription>& ranks, uint32_t stage_size,
                     std::vector<SessionInfo>* subgraphs);

// "rank 3 on 10.0.0.2"
std::string RankText(uint32_t rank, const std::string& host);
// "0, 1, 5"
std::string ListText(const std::vector<uint32_t>& ranks);

}  // namespace msserving
