// The two ends of the network on the GPU: the camera's frame becomes its input, its answer becomes the mask.
//
// Compiled on the robot, for its own GPU, by NVRTC or nvcc, from CUDA 11.4 on; and by g++ for the tests, which is why
// nothing is included. Everything that depends on the sizes alone stands in tables made once per size by
// _cuda_frames.py. Pictures are packed: a row follows the one before it.

typedef unsigned char byte;

// The two pixels that one resized pixel lies between, and their shares in 2048ths, as cv2.resize has them.
struct alignas(16) Tap {
    int first, second, first_share, second_share;
};

// Where a mask goes, and, where overlay is not null, the frame in the colours of its classes.
struct Target {
    byte *mask;           // (height, width)
    const byte *classes;  // (256) what stands in the mask for each class of the network
    const byte *frame;    // (height, width, 3) BGR
    const byte *palette;  // (colours, 3) BGR; what has no colour leaves the frame as it is
    byte *overlay;        // (height, width, 3) BGR
    int height, width, colours;
    float alpha;
};

static __device__ void put(const Target &target, int row, int column, byte answer) {
    const size_t pixel = (size_t)row * target.width + column;
    const byte label = target.classes[answer];
    target.mask[pixel] = label;
    if (!target.overlay) return;
    for (int channel = 0; channel < 3; channel++) {
        const float seen = target.frame[3 * pixel + channel];
        float shown = seen;
        if (label < target.colours) shown = seen * (1.0f - target.alpha) + target.palette[3 * label + channel] * target.alpha;
        target.overlay[3 * pixel + channel] = (byte)rintf(shown);
    }
}

// frame: (any, frame_width, 3) BGR. rows, columns: a tap for each pixel of the part of the input that shows the frame,
// which begins at (top, left); the rest becomes 0, the mean. values: (3, 256) what each level becomes, in the order of
// the network's channels. input: (3, input_height, input_width). One thread per pixel of it.
extern "C" __global__ void prepare_frame(
    const byte *__restrict__ frame, int frame_width, const Tap *__restrict__ rows, const Tap *__restrict__ columns,
    int top, int left, int height, int width, const float *__restrict__ values, int rgb, float *__restrict__ input,
    int input_height, int input_width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= input_width || row >= input_height) return;
    const size_t plane = (size_t)input_height * input_width;
    float *target = input + (size_t)row * input_width + column;
    if (row < top || row >= top + height || column < left || column >= left + width) {
        for (int channel = 0; channel < 3; channel++) target[channel * plane] = 0.0f;
        return;
    }
    const Tap down = rows[row - top], across = columns[column - left];
    const byte *upper = frame + (size_t)down.first * frame_width * 3;
    const byte *lower = frame + (size_t)down.second * frame_width * 3;
    for (int channel = 0; channel < 3; channel++) {
        const int first = 3 * across.first + channel, second = 3 * across.second + channel;
        const int above = upper[first] * across.first_share + upper[second] * across.second_share;
        const int below = lower[first] * across.first_share + lower[second] * across.second_share;
        // cv2's own roundings: 11 bits of share each way, of which 4, 16 and 2 are dropped in turn.
        const int level = ((down.first_share * (above >> 4) >> 16) + (down.second_share * (below >> 4) >> 16) + 2) >> 2;
        const int place = rgb ? 2 - channel : channel;
        target[place * plane] = values[256 * place + level];
    }
}

// Cells of the grid that one block of threads fills.
enum { CELL_ROWS = 4, CELL_COLUMNS = 8 };

// logits: (classes, grid_height, grid_width). top, down, left, across: of each row and column of the mask the cell it
// lies in, and how far along. row_starts, column_starts: (grid_height + 1), (grid_width + 1) the first row and column
// of the mask in each cell. spoilt: becomes 1 where a logit is NaN or infinite, and stays what it was else.
//
// Where the same class wins at all four corners of a cell, it wins everywhere in it; only the pixels of other cells are
// evaluated. See rtda_runtime.mask.upsample.
extern "C" __global__ void mask_from_logits(
    const float *__restrict__ logits, int classes, int grid_height, int grid_width, const int *__restrict__ top,
    const float *__restrict__ down, const int *__restrict__ left, const float *__restrict__ across,
    const int *__restrict__ row_starts, const int *__restrict__ column_starts, Target target, int *spoilt) {
    __shared__ byte winners[(CELL_ROWS + 1) * (CELL_COLUMNS + 1)];
    const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    const int cell_row = blockIdx.y * CELL_ROWS, cell_column = blockIdx.x * CELL_COLUMNS;
    const size_t plane = (size_t)grid_height * grid_width;
    for (int corner = thread; corner < (CELL_ROWS + 1) * (CELL_COLUMNS + 1); corner += threads) {
        const int row = min(cell_row + corner / (CELL_COLUMNS + 1), grid_height - 1);
        const int column = min(cell_column + corner % (CELL_COLUMNS + 1), grid_width - 1);
        const float *value = logits + (size_t)row * grid_width + column;
        float best = value[0];
        bool finite = best - best == 0.0f;
        int winner = 0;
        for (int number = 1; number < classes; number++) {
            const float one = value[number * plane];
            finite = finite && one - one == 0.0f;
            if (one > best) {
                best = one;
                winner = number;
            }
        }
        winners[corner] = (byte)winner;
        if (!finite) *spoilt = 1;
    }
    __syncthreads();
    const int end_row = row_starts[min(cell_row + CELL_ROWS, grid_height)];
    const int end_column = column_starts[min(cell_column + CELL_COLUMNS, grid_width)];
    for (int row = row_starts[cell_row] + threadIdx.y; row < end_row; row += blockDim.y) {
        const int upper = top[row], lower = min(upper + 1, grid_height - 1);
        const float share_down = down[row];
        for (int column = column_starts[cell_column] + threadIdx.x; column < end_column; column += blockDim.x) {
            const int first = left[column], second = min(first + 1, grid_width - 1);
            const int above = (upper - cell_row) * (CELL_COLUMNS + 1) - cell_column;
            const int below = (lower - cell_row) * (CELL_COLUMNS + 1) - cell_column;
            int winner = winners[above + first];
            if (winners[above + second] != winner || winners[below + first] != winner ||
                winners[below + second] != winner) {
                const float *corner = logits + (size_t)upper * grid_width + first;
                const int to_right = second - first, to_below = (lower - upper) * grid_width;
                // The same base off all classes changes no winner and keeps the precision of a float.
                const float base = corner[winner * plane], share_across = across[column];
                float highest = 0.0f;
                for (int number = 0; number < classes; number++) {
                    const float *value = corner + number * plane;
                    const float a = value[0] - base, b = value[to_right] - base;
                    const float c = value[to_below] - base, d = value[to_below + to_right] - base;
                    const float one = (a + share_down * (c - a)) + share_across * ((b - a) + share_down * ((d - c) - (b - a)));
                    if (number == 0 || one > highest) {
                        highest = one;
                        winner = number;
                    }
                }
            }
            put(target, row, column, (byte)winner);
        }
    }
}

// For networks that give a mask: answer (any, answer_width); rows, columns: the nearest of its pixels to each row and
// column of the mask. One thread per pixel of the mask.
extern "C" __global__ void mask_from_mask(
    const byte *__restrict__ answer, int answer_width, const int *__restrict__ rows, const int *__restrict__ columns,
    Target target) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= target.width || row >= target.height) return;
    put(target, row, column, answer[(size_t)rows[row] * answer_width + columns[column]]);
}
