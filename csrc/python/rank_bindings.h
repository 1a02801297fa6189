// What other bindings must know of those of ranks.
#pragma once

#include "distributed/rank_server.h"

namespace msserving {

// Held by Python and by the worker whose sessions stand on it. Its threads never take the GIL.
using RankServerHolder = std::shared_ptr<RankServer>;

}  // namespace msserving
