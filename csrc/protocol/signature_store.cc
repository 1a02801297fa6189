#include "protocol/signature_store.h"

#include <algorithm>

namespace msserving {
namespace {

bool Same(const MethodSignature& a, const MethodSignature& b) {
  return a.name == b.name && a.inputs == b.inputs && a.outputs == b.outputs;
}

}  // namespace

const MethodSignature* SignatureStore::Keep(const MethodSignature& signature) {
  const auto known = last_.find(&signature);
  if (known != last_.end() && Same(*known->second, signature)) {
    return known->second;
  }
  auto kept =
      std::find_if(kept_.begin(), kept_.end(), [&](const MethodSignature& one) { return Same(one, signature); });
  if (kept == kept_.end()) {
    kept = kept_.insert(kept_.end(), signature);
  }
  if (last_.size() > 4 * kept_.size() + 64) {
    last_.clear();  // mostly addresses of signatures that are gone
  }
  last_[&signature] = &*kept;
  return &*kept;
}

}  // namespace msserving
