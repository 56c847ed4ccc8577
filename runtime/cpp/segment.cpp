// A mask of one picture, with ONNX Runtime's C++ API and nothing of rtda-deploy. How to build it: docs/interop.md.
//
//     rtda-deploy export best.pth --to onnx --input uint8 --output mask
//     ./segment best.onnx frame.ppm mask.pgm
//
// The picture has the network's size; channel order, scale, mean and std are in the graph. Each byte of the mask is a
// class, in the order that `rtda-deploy inspect best.onnx` shows.
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

std::vector<uint8_t> read_bgr(const char* path, int64_t width, int64_t height) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t columns = 0, rows = 0, most = 0;
  if (!(file >> magic >> columns >> rows >> most) || magic != "P6" || most != 255)
    throw std::runtime_error(std::string(path) + " is no PPM (P6, 8 bits, no comments): ffmpeg -i frame.png frame.ppm");
  if (columns != width || rows != height)
    throw std::runtime_error(std::string(path) + " is " + std::to_string(columns) + "x" + std::to_string(rows) +
                             ", the network takes " + std::to_string(width) + "x" + std::to_string(height) +
                             ": resize it first, bilinear, without keeping the aspect");
  file.get();  // the one blank before the pixels
  std::vector<uint8_t> pixels(3 * width * height);
  if (!file.read(reinterpret_cast<char*>(pixels.data()), pixels.size()))
    throw std::runtime_error(std::string(path) + " is cut off");
  for (size_t i = 0; i < pixels.size(); i += 3) std::swap(pixels[i], pixels[i + 2]);  // a PPM is RGB, a frame is BGR
  return pixels;
}

int main(int count, char** words) try {
  if (count != 4) throw std::runtime_error("usage: segment MODEL.onnx FRAME.ppm MASK.pgm");
  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "segment");
  Ort::Session session(environment, words[1], Ort::SessionOptions{});  // both live as long as frames come
  Ort::TypeInfo taken = session.GetInputTypeInfo(0), given = session.GetOutputTypeInfo(0);
  auto input = taken.GetTensorTypeAndShapeInfo(), output = given.GetTensorTypeAndShapeInfo();
  std::vector<int64_t> shape = input.GetShape(), mask_shape = output.GetShape();
  const auto bytes = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  if (input.GetElementType() != bytes || output.GetElementType() != bytes || shape.size() != 4 || shape[3] != 3)
    throw std::runtime_error("export it with --input uint8 --output mask: uint8 (1, H, W, 3) to uint8 (1, H, W)");

  std::vector<uint8_t> frame = read_bgr(words[2], shape[2], shape[1]), mask(shape[1] * shape[2]);
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto picture = Ort::Value::CreateTensor<uint8_t>(memory, frame.data(), frame.size(), shape.data(), shape.size());
  auto answer =
      Ort::Value::CreateTensor<uint8_t>(memory, mask.data(), mask.size(), mask_shape.data(), mask_shape.size());
  const char *in[] = {"image"}, *out[] = {"mask"};
  session.Run(Ort::RunOptions{nullptr}, in, &picture, 1, out, &answer, 1);

  std::ofstream file(words[3], std::ios::binary);
  file << "P5\n" << shape[2] << " " << shape[1] << "\n255\n";
  if (!file.write(reinterpret_cast<const char*>(mask.data()), mask.size()) || !file.flush())
    throw std::runtime_error(std::string(words[3]) + " cannot be written");
} catch (const std::exception& error) {  // of ONNX Runtime too
  std::cerr << "error  " << error.what() << "\n";
  return 1;
}
