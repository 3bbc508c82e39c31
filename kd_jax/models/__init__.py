"""Models of images and of text: a family a file, each a Linen module that returns `ModelOutput`.

`registry` names them, `network` applies them, `weights` reads and writes published weights. A new
model is one file here and one line in `registry.MODELS`."""
