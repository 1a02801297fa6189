// What a worker says of itself when it is ready.
#pragma once

#include <string_view>

#include "base/error.h"
#include "servable/signature.h"

namespace msserving {

// {"methods": [{"name": …, "inputs": [names], "outputs": [names], "stages": ["python", "model", …]}, …],
// "models": […], …}; other keys are ignored, "stages" and "models" may be missing. Fills all but the name and version.
Status ParseSignature(std::string_view json, ServableSignature* signature);

}  // namespace msserving
