"""Reads the collection with Qdrant's Python client, over REST and gRPC. Arguments: both ports, and an optional API key."""
import sys

from qdrant_client import QdrantClient, models

rest, grpc = (int(port) for port in sys.argv[1:3])
key = sys.argv[3] if len(sys.argv) > 3 else None
for name, prefer_grpc in (("rest", False), ("grpc", True)):
    client = QdrantClient(
        host="127.0.0.1", port=rest, grpc_port=grpc, prefer_grpc=prefer_grpc, api_key=key, https=False
    )
    info = client.get_collection("documents")
    assert info.config.params.vectors.size == 64, info
    assert info.config.params.vectors.distance == models.Distance.COSINE, info
    points, after = client.scroll("documents", limit=100, with_payload=True, with_vectors=True)
    assert after is None and len(points) == info.points_count, info
    name_of = points[0].payload["product"]
    product = models.FieldCondition(key="product", match=models.MatchValue(value=name_of))
    found = client.count("documents", count_filter=models.Filter(must=[product]), exact=True).count
    assert found == sum(point.payload["product"] == name_of for point in points) > 0, found
    one = points[0]
    hits = client.query_points("documents", query=one.vector, limit=3, with_payload=True).points
    assert hits[0].id == one.id and hits[0].score > 0.99, hits
    assert hits[0].payload["_tidewheel"]["namespace"].endswith(".tickets"), hits
    got = client.retrieve("documents", ids=[one.id], with_vectors=True)
    assert got[0].payload == one.payload, got
    print(f"{name}: {client.count('documents').count} points")
