// Headers of the MindSpore wheel include this name; in the wheel it lives elsewhere.
#pragma once
#include "utils/log_adapter.h"  // IWYU pragma: export
