"""A PyTorch program with its import changed: two moons, an MLP, the usual loop."""

import math
import sys

import cartograd as cg
from cartograd import nn

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
POINTS, NOISE, BATCH, RATE, SEED = 400, 0.1, 50, 1e-2, 0

cg.manual_seed(SEED)

angle = cg.random.uniform((POINTS,)) * math.pi
side = cg.random.bernoulli(0.5, (POINTS,)).astype(cg.float32)
points = cg.stack(
    [cg.cos(angle) * (1 - 2 * side) + side, cg.sin(angle) * (1 - 2 * side) + 0.5 * side], dim=1
)
points = points + NOISE * cg.random.randn(POINTS, 2)
labels = side.astype(cg.int64)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(2, 32)
        self.out = nn.Linear(32, 2)

    def forward(self, x):
        return self.out(nn.functional.relu(self.hidden(x)))


model = Net()
optimizer = cg.optim.Adam(model.parameters(), lr=RATE)
loss_fn = nn.CrossEntropyLoss()
data = cg.data.TensorDataset(points, labels)
loader = cg.data.DataLoader(data, batch_size=BATCH, shuffle=True)

for epoch in range(EPOCHS):
    for x, y in loader:
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 10 == 0:
        print(f"epoch {epoch:3d}  loss {loss.item():.4f}")

with cg.no_grad():
    right = (model(points).argmax(dim=1) == labels).float().mean()
print(f"accuracy {right.item():.3f}")
