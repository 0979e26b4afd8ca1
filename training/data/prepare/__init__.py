"""The three mini sets, or full-size ones, out of the official releases of VOC 2012, COCO 2017 and Imagenette."""
