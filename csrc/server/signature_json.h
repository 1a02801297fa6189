// What a worker says of itself when it is ready.
#pragma once

#include <string_view>

#include "base/error.h"
#include "servable/signature.h"

namespace msserving {

// {"methods": [{"name": …, "inputs": [names], "outputs": [names]}, …], …}; other keys are ignored. Fills
// signature->methods.
Status ParseSignature(std::string_view json, ServableSignature* signature);

}  // namespace msserving
