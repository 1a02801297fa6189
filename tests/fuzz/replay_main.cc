// Runs a fuzz target once over every file below the folders that are named, without a fuzzer: what was ever found
// stays tested in every build. Fails if there is no file, and by crashing where the target does.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  size_t count = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) {
        continue;
      }
      std::printf("%s\n", entry.path().c_str());
      std::fflush(stdout);  // the last line names the file that crashed
      std::ifstream file(entry.path(), std::ios::binary);
      // Exactly as long as the input, so that a sanitizer sees every step beyond it.
      const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
      ++count;
    }
  }
  std::printf("%zu inputs\n", count);
  return count > 0 ? 0 : 1;
}
