"""Training: three folders of pictures in, one checkpoint out, learned in three stages."""
