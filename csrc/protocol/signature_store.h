// Method signatures that outlive the dispatcher's: a reply names its outputs long after Find() returned, and the
// servable may have been replaced since.
#pragma once

#include <deque>
#include <unordered_map>

#include "servable/signature.h"

namespace msserving {

// Keeps one copy of each distinct signature it is shown, for as long as it lives: as many as methods were ever
// deployed. One thread only.
class SignatureStore {
 public:
  // A signature equal to `signature` that stays where it is. Allocates only the first time it sees these contents.
  const MethodSignature* Keep(const MethodSignature& signature);

  size_t size() const { return kept_.size(); }

 private:
  std::deque<MethodSignature> kept_;
  // Where a signature was last seen; an address may have been used again, so contents are compared.
  std::unordered_map<const MethodSignature*, const MethodSignature*> last_;
};

}  // namespace msserving
